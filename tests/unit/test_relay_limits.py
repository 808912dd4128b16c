"""How much at a time: measures, jobs, lines in the journal. Time is the tests' own."""

import threading

import pytest

from labstead.errors import BadInput
from labstead.relay.limits import Bucket, JobLimit, Seldom


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_goes_at_once_and_the_rest_in_measure() -> None:
    clock = Clock()
    bucket = Bucket(5, 60, clock)
    assert [bucket.take(1, 20) for _ in range(60)] == [0.0] * 60
    # Five a second come back.
    assert [bucket.take(1, 20) for _ in range(3)] == pytest.approx([0.2, 0.4, 0.6])
    clock.now += 0.6
    assert bucket.take(1, 20) == pytest.approx(0.2)
    clock.now += 3600
    assert [bucket.take(1, 0) for _ in range(61)] == [0.0] * 60 + [None]


def test_who_would_wait_too_long_is_refused_and_takes_nothing() -> None:
    clock = Clock()
    bucket = Bucket(1, 1, clock)
    assert bucket.take(1, 2) == 0
    assert bucket.take(1, 2) == 1
    assert bucket.take(1, 2) == 2
    assert [bucket.take(1, 2) for _ in range(1000)] == [None] * 1000
    clock.now += 3
    assert bucket.take(1, 2) == 0


def test_one_persons_measure_is_not_anothers() -> None:
    bucket = Bucket(1, 1, Clock())
    assert bucket.take(1, 0) == 0
    assert bucket.take(1, 0) is None
    assert bucket.take(2, 0) == 0


def test_measures_of_very_many_people_take_bounded_room() -> None:
    bucket = Bucket(1, 1, Clock())
    for uid in range(20_000):
        bucket.take(uid, 0)
    assert len(bucket._left) <= 4096


def test_what_happens_often_is_said_seldom() -> None:
    clock = Clock()
    seldom = Seldom(2, clock)
    assert [seldom.is_one_to_say(1) for _ in range(4)] == [True, True, False, False]
    assert seldom.is_one_to_say(2)
    clock.now += 60
    assert seldom.is_one_to_say(1)


class Queue:
    """Slurm's queue of one person."""

    def __init__(self, jobs: int = 0) -> None:
        self.jobs = jobs
        self.asked = 0

    def count(self) -> int:
        self.asked += 1
        return self.jobs


def submit(limit: JobLimit, queue: Queue, jobs: int = 1, uid: int = 1) -> None:
    with limit.submitting(uid, jobs, queue.count) as submission:
        queue.jobs += jobs
        submission.succeeded = True


def test_jobs_are_counted_up_to_the_limit() -> None:
    queue, limit = Queue(3), JobLimit(5, clock=Clock())
    submit(limit, queue)
    submit(limit, queue)
    with pytest.raises(BadInput, match=r"you have 5 jobs waiting or running, and may have 5$"):
        submit(limit, queue)
    assert queue.jobs == 5


def test_an_array_counts_with_all_its_tasks() -> None:
    queue, limit = Queue(), JobLimit(10, clock=Clock())
    with pytest.raises(BadInput, match="may have 10; these would be 11 more"):
        submit(limit, queue, 11)
    submit(limit, queue, 10)


def test_slurm_is_asked_now_and_then_and_before_a_refusal() -> None:
    clock = Clock()
    queue, limit = Queue(), JobLimit(5, kept_seconds=2, clock=clock)
    for _ in range(4):
        submit(limit, queue)
    assert queue.asked == 1
    queue.jobs = 0  # they have ended
    for _ in range(3):
        submit(limit, queue)
    assert queue.asked == 2
    clock.now += 2
    submit(limit, queue)
    assert queue.asked == 3


def test_a_submission_that_fails_takes_no_room() -> None:
    queue, limit = Queue(), JobLimit(1, clock=Clock())
    for _ in range(3):
        with limit.submitting(1, 1, queue.count):
            pass
        with pytest.raises(ZeroDivisionError), limit.submitting(1, 1, queue.count):
            raise ZeroDivisionError
    submit(limit, queue)


def test_submissions_at_once_never_pass_the_limit() -> None:
    queue, limit = Queue(), JobLimit(7, kept_seconds=0.001)
    refused = []

    def many() -> None:
        for _ in range(20):
            try:
                submit(limit, queue)
            except BadInput as error:
                refused.append(error)

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (queue.jobs, len(refused)) == (7, 153)


def test_one_persons_submissions_do_not_hold_up_anothers() -> None:
    limit = JobLimit(5)
    with limit.submitting(1, 1, lambda: 0):
        submit(limit, Queue(), uid=2)


def test_very_many_people_take_bounded_room() -> None:
    limit = JobLimit(5)
    with limit.submitting(1, 1, lambda: 0):
        for uid in range(2, 10_000):
            submit(limit, Queue(), uid=uid)
        assert 1 in limit._people
    assert len(limit._people) <= 4097

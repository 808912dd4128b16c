"""How much at a time: calls of one person, their jobs, and lines in the journal.

The one rule: what somebody does too often, or too much of, is slow for them and for nobody else.
"""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from labstead.errors import BadInput

_MOST_KEPT = 4096
"""People of whom something is remembered; there are fewer who are at work at once."""


class Bucket:
    """Tokens that come back with time, for each uid.

    :param per_second: how many come back
    :param burst: how many there are at most
    :param clock: seconds
    """

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[int, tuple[float, float]] = {}

    def take(self, uid: int, patience: float) -> float | None:
        """Take a token, which may still have to come back.

        :param patience: seconds to wait at most
        :return: seconds to wait; None: it would be longer, and nothing was taken
        """
        with self._lock:
            now = self._clock()
            left, since = self._left.get(uid, (self._burst, now))
            left = min(self._burst, left + (now - since) * self._per_second) - 1
            wait = max(-left / self._per_second, 0.0)
            if wait > patience:
                return None
            if len(self._left) >= _MOST_KEPT:
                self._left.clear()
            self._left[uid] = (left, now)
            return wait


class Seldom:
    """Says of what happens often how often it did, for the journal.

    :param most: how many times a minute something is said of one uid
    """

    def __init__(self, most: int = 10, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock()
        self._seen: Counter[int] = Counter()

    def is_one_to_say(self, uid: int) -> bool:
        """Tell whether this one should be said."""
        with self._lock:
            if self._clock() - self._since >= 60 or len(self._seen) >= _MOST_KEPT:
                self._since = self._clock()
                self._seen.clear()
            self._seen[uid] += 1
            return self._seen[uid] <= self._most


_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([0-9]{1,9}))?)?")


def tasks(array: str) -> int:
    """Count the tasks of an array as `sbatch --array` takes it: 0-15:4, 1,3,7, 1-100%10.

    :raises BadInput: when it is written in another way, some of which Slurm would understand
    """
    ranges, _, at_once = array.partition("%")
    count = 0
    for part in ranges.split(","):
        match = _RANGE.fullmatch(part)
        first, end, step = (int(match[1]), int(match[2] or match[1]), int(match[3] or 1)) if match else (0, 0, 0)
        if end < first or step < 1 or not re.fullmatch(r"[0-9]{0,9}", at_once):
            raise BadInput("--array: write numbers and ranges, such as 0-15, 1,3,7 or 1-100%10")
        count += (end - first) // step + 1
    return count


@dataclass
class _Person:
    """What is known of somebody's jobs."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    submitting: int = 0
    """Callers who hold the lock or wait for it."""
    jobs: int = 0
    counted: float | None = None
    """When Slurm said so."""


@dataclass
class Submission:
    """A submission that may go ahead."""

    succeeded: bool = False
    """For the caller to set."""


class JobLimit:
    """How many jobs somebody may have waiting and running.

    One person's submissions go one after another, so that what is counted is what there is.

    :param most: for each person
    :param kept_seconds: for which a count of Slurm's holds, together with what was submitted since
    """

    def __init__(self, most: int, kept_seconds: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._kept = kept_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._people: dict[int, _Person] = {}

    def _enter(self, uid: int) -> _Person:
        with self._lock:
            if len(self._people) >= _MOST_KEPT:
                self._people = {uid: person for uid, person in self._people.items() if person.submitting}
            person = self._people.setdefault(uid, _Person())
            person.submitting += 1
            return person

    @contextmanager
    def submitting(self, uid: int, jobs: int, count: Callable[[], int]) -> Iterator[Submission]:
        """Keep room for jobs while they are submitted.

        :param count: asks Slurm how many there are
        :raises BadInput: when there would be too many
        """
        person = self._enter(uid)
        try:
            with person.lock:
                if person.counted is None or self._clock() - person.counted >= self._kept:
                    self._count(person, count)
                elif person.jobs + jobs > self._most:
                    self._count(person, count)  # some may have ended
                if person.jobs + jobs > self._most:
                    more = f"; these would be {jobs} more" if jobs > 1 else ""
                    raise BadInput(f"you have {person.jobs} jobs waiting or running, and may have {self._most}{more}")
                submission = Submission()
                yield submission
                if submission.succeeded:
                    person.jobs += jobs
        finally:
            with self._lock:
                person.submitting -= 1

    def _count(self, person: _Person, count: Callable[[], int]) -> None:
        person.jobs = count()
        person.counted = self._clock()

"""Wrong passwords in a row."""

from labstead.hub.lockout import Lockout


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_name_waits_after_so_many_attempts_and_for_so_long() -> None:
    clock = Clock()
    lockout = Lockout(3, 60, clock)
    for _ in range(3):
        assert not lockout.waits("anna")
        lockout.count("anna")
    assert lockout.waits("anna")
    assert not lockout.waits("bert")
    clock.now = 60
    assert lockout.waits("anna")
    clock.now = 61
    assert not lockout.waits("anna")


def test_a_right_password_forgives_and_an_attempt_can_be_taken_back() -> None:
    lockout = Lockout(1, 60, Clock())
    lockout.count("anna")
    lockout.forgive("anna")
    assert not lockout.waits("anna")
    lockout.count("anna")
    lockout.take_back("anna")
    lockout.take_back("nobody")
    assert not lockout.waits("anna")


def test_names_whose_time_is_over_are_forgotten_where_there_are_many() -> None:
    clock = Clock()
    lockout = Lockout(1, 60, clock)
    for number in range(10_000):
        lockout.count(f"guess{number}")
    clock.now = 61
    lockout.count("anna")
    assert lockout.names() == 1
    assert lockout.waits("anna")

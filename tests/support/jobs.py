"""Slurm as the relay tells of it, for programs that ask for somebody's jobs and end them."""

from labstead.errors import LabsteadError
from labstead.relay.client import Jobs


class Queue:
    """The relay's client, and who has which jobs behind it."""

    def __init__(self, **people: Jobs) -> None:
        self.people = people
        self.asked: list[tuple[str, str]] = []
        """Whose jobs were to end, and which."""
        self.is_away = False
        self.keeps_jobs = False
        """Whether jobs that were told to end go on."""

    def _look(self) -> None:
        if self.is_away:
            raise LabsteadError("the Slurm relay does not answer")

    def everybody(self) -> dict[str, Jobs]:
        """Give all who have jobs."""
        self._look()
        return dict(self.people)

    def jobs(self, user: str) -> Jobs:
        """Give somebody's."""
        self._look()
        return self.people.get(user, Jobs(0, 0))

    def end(self, user: str, what: str = "dask") -> int:
        """End somebody's."""
        self._look()
        self.asked.append((user, what))
        had = self.people.get(user, Jobs(0, 0))
        left = Jobs(had.all - had.dask, 0) if what == "dask" else Jobs(0, 0)
        if not self.keeps_jobs:
            self.people.pop(user, None)
            if left.all:
                self.people[user] = left
        return had.all - left.all

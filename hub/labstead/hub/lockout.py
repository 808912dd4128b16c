"""How many wrong passwords in a row a name may have before it has to wait.

The one rule: an attempt is counted before its password is looked at, so that of many guesses sent at the same moment
only so many are looked at.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

_MAX_NAMES = 10_000
"""Names that are remembered at most; beyond that those whose time is over are forgotten."""


@dataclass
class _Attempts:
    count: int
    last: float


@dataclass
class Lockout:
    """The attempts on one door.

    :param allowed: wrong passwords in a row
    :param seconds: how long a name waits after its last attempt
    """

    allowed: int
    seconds: int
    clock: Callable[[], float] = time.monotonic
    _attempts: dict[str, _Attempts] = field(default_factory=dict)

    def waits(self, name: str) -> bool:
        """Tell whether a name has to wait."""
        attempts = self._attempts.get(name)
        if attempts is None:
            return False
        if self._is_over(attempts):
            del self._attempts[name]
            return False
        return attempts.count >= self.allowed

    def count(self, name: str) -> None:
        """Count an attempt, which may turn out right."""
        if len(self._attempts) >= _MAX_NAMES:
            self._attempts = {name: made for name, made in self._attempts.items() if not self._is_over(made)}
        attempts = self._attempts.setdefault(name, _Attempts(0, 0.0))
        attempts.count += 1
        attempts.last = self.clock()

    def forgive(self, name: str) -> None:
        """Forget the attempts on a name: its password was right."""
        self._attempts.pop(name, None)

    def take_back(self, name: str) -> None:
        """Take the last attempt back: nobody looked at the password."""
        if attempts := self._attempts.get(name):
            attempts.count -= 1

    def names(self) -> int:
        """Tell how many names are remembered."""
        return len(self._attempts)

    def _is_over(self, attempts: _Attempts) -> bool:
        return self.clock() - attempts.last > self.seconds

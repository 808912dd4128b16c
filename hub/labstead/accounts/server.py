"""The accounts service at its socket: one request at a time, each from somebody who may ask.

The one rule: a request is looked at only after the kernel has said who sent it. Requests are few, so they are done
one after the other, which is also what keeps two of them from making the same account.
"""

import json
import logging
import pwd
import socket
import time

from pydantic import ValidationError

from labstead import peer, settings
from labstead.accounts import protocol
from labstead.accounts.ledger import Ledger
from labstead.accounts.service import Service
from labstead.errors import AccountRefused, Refusal

IDLE_SECONDS = 3600.0
"""Without a request for so long the process ends; systemd starts it again with the next one, which waits longer."""
_PATIENCE_SECONDS = 5.0
"""How long a caller may take to send their line."""

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
    if uid not in (0, hub_uid):
        return _refuse(Refusal.NOT_ALLOWED, f"uid {uid} may not ask the accounts service")
    if len(line) > protocol.MAX_LINE:
        return _refuse(Refusal.FAILED, f"a request has at most {protocol.MAX_LINE} bytes")
    try:
        request = protocol.request_adapter.validate_json(line)
    except ValidationError as error:
        return _refuse(Refusal.FAILED, f"not a request: {error.errors(include_url=False)[0]['msg']}")
    if uid != 0 and not isinstance(request, protocol.HUB_OPERATIONS):
        return _refuse(Refusal.NOT_ALLOWED, f"only root may ask for {request.op}")
    try:
        result = service.handle(request)
    except AccountRefused as refused:
        log.warning("refused: %s (asked by uid %d for %s)", refused, uid, request.op)
        return _refuse(refused.code, str(refused))
    except OSError as error:
        log.warning("failed: %s: %s", request.op, error)
        return _refuse(Refusal.FAILED, str(error))
    except Exception:
        log.exception("failed: %s", request.op)
        return _refuse(Refusal.FAILED, "the accounts service failed; see `journalctl -u labstead-accounts`")
    if getattr(result, "changed", False):
        log.info("%s by uid %d: %s", request.op, uid, json.dumps(result.model_dump(mode="json")))
    return protocol.Reply(result=result)


def serve(listener: socket.socket, service: Service, hub_uid: int, idle_seconds: float = IDLE_SECONDS) -> None:
    """Answer requests until there are none for a while."""
    while True:
        listener.settimeout(idle_seconds)
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            return
        with connection:
            try:
                uid = peer.peer_uid(connection)
                line = _read_line(connection) if uid in (0, hub_uid) else b""
                reply = answer(line, uid, hub_uid, service)
                connection.sendall(reply.model_dump_json().encode() + b"\n")
            except OSError as error:
                log.warning("a caller went away: %s", error)


def main() -> None:
    """Run as the systemd service."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    service = Service(settings.load_accounts(), Ledger())
    serve(peer.socket_from_systemd(), service, pwd.getpwnam(peer.HUB_USER).pw_uid)

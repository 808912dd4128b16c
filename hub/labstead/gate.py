"""The gate: the only way from the hub to Docker.

Docker's socket is root. The gate runs as its own user in group docker, listens on /run/labstead/gate.sock, answers the
hub's user alone, and knows these calls of the Engine API, with or without a `/v1.N` prefix:

    GET    /_ping, /version
    GET    /images/REFERENCE/json             for allowed images
    POST   /containers/create?name=NAME       for a body that is the container contract's
    GET    /containers/ID/json                for sessions (containers that bear the contract's label), as are all below
    POST   /containers/ID/start               without a body
    POST   /containers/ID/stop
    DELETE /containers/ID

The one rule: nothing that the hub sends is passed on as it came. Each call to Docker is made anew here, from parts
that were checked. A refusal answers 403 with the reason and is logged. When Docker itself does not answer, the gate
answers 503, which the spawner takes for "not known", never for "gone".
"""

import logging
import pwd
import re
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web

from labstead import contract, identity, peer, seccomp, settings
from labstead.errors import LabsteadError
from labstead.settings import Sessions

DOCKER_SOCKET = "/run/docker.sock"

_MAX_BODY = 1024 * 1024
_SERVER_ERROR = 500
_STOP_SECONDS = 10
"""How long a session may take to end after SIGTERM."""
_TIMEOUT = aiohttp.ClientTimeout(total=90, connect=5)
_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")

log = logging.getLogger("labstead.gate")

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SETTINGS: web.AppKey[Sessions] = web.AppKey("settings", Sessions)
_DOCKER: web.AppKey[aiohttp.ClientSession] = web.AppKey("docker", aiohttp.ClientSession)


def _error(status: int, message: str) -> web.Response:
    # Docker's own form of an error, which its clients know how to show.
    return web.json_response({"message": message}, status=status)


def only_for(uid: int) -> Any:
    """Make the middleware that answers one user alone."""

    @web.middleware
    async def check_peer(request: web.Request, handler: _Handler) -> web.StreamResponse:
        connection = request.transport.get_extra_info("socket") if request.transport else None
        if connection is None or peer.peer_uid(connection) != uid:
            log.warning("refused a caller that is not uid %d: %s %s", uid, request.method, request.path)
            return _error(403, "labstead-gate answers the hub alone")
        return await handler(request)

    return check_peer


@web.middleware
async def _errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        log.warning("refused: %s %s: %s", request.method, request.path, error.reason)
        return _error(403, f"labstead-gate does not pass on {request.method} {request.path}")
    except LabsteadError as error:
        log.warning("refused: %s %s: %s", request.method, request.path, error)
        return _error(403, f"labstead-gate: {error}")
    except (aiohttp.ClientError, TimeoutError) as error:
        log.warning("Docker does not answer: %s", error)
        return _error(503, "labstead-gate: Docker does not answer")
    except Exception:
        log.exception("refused: %s %s", request.method, request.path)
        return _error(403, "labstead-gate could not make sense of this; see its journal")


async def _docker(request: web.Request, method: str, path: str, **kwargs: Any) -> web.Response:
    """Make a call to Docker and give its answer whole."""
    async with request.app[_DOCKER].request(method, f"http://docker{path}", **kwargs) as answer:
        body = await answer.read()
        # DockerSpawner takes a 500 to mean that the container is gone; that is for Docker to say with a 404.
        status = answer.status if answer.status < _SERVER_ERROR else 503
        return web.Response(status=status, body=body, headers={"Content-Type": answer.content_type})


async def _ping(request: web.Request) -> web.Response:
    return await _docker(request, "GET", "/_ping")


async def _version(request: web.Request) -> web.Response:
    return await _docker(request, "GET", "/version")


async def _inspect_image(request: web.Request) -> web.Response:
    image = request.app[_SETTINGS].image(request.match_info["reference"])
    return await _docker(request, "GET", f"/images/{image.reference}/json")


def _was_opened(user: str) -> bool:
    """Tell whether the accounts service, which alone knows who is the hub's, lets this person have a session."""
    passwd = identity.SESSIONS_DIR / user / "passwd"
    return passwd.is_file() and passwd.owner() == "root"


async def _refuse_volumes(request: web.Request, reference: str) -> None:
    async with request.app[_DOCKER].get(f"http://docker/images/{reference}/json") as answer:
        if answer.status == 200:  # else Docker will say of the container what is wrong
            contract.refuse_volumes(reference, await answer.json())


async def _create(request: web.Request) -> web.Response:
    try:
        body = await request.json()
    except ValueError:
        raise contract.ContractViolation("the body is not JSON") from None
    user = contract.user_of(body.get("Labels")) if isinstance(body, dict) else None
    if user is None:
        raise contract.ContractViolation(f"the label {contract.LABEL_USER} is missing")
    name, sessions = request.query.get("name", ""), request.app[_SETTINGS]
    person = identity.with_folders(identity.look_up(user), sessions.group_root, sessions.scratch_root)
    good = contract.checked(body, name, person, sessions, seccomp.load())
    if not _was_opened(user):
        raise contract.ContractViolation(f"the accounts service has not opened a session of {user}")
    await _refuse_volumes(request, good["Image"])
    log.info("create %s", name)
    return await _docker(request, "POST", "/containers/create", params={"name": name}, json=good)


async def _session(request: web.Request) -> tuple[str, web.Response]:
    """Find the session that a call is about.

    :return: its full id, and what Docker says of it; the id is empty where there is none
    """
    name = request.match_info["id"]
    if not _ID.fullmatch(name):
        raise contract.ContractViolation(f"{name!r} is not the name of a container")
    async with request.app[_DOCKER].get(f"http://docker/containers/{name}/json") as answer:
        if answer.status >= _SERVER_ERROR:
            return "", _error(503, f"labstead-gate: Docker answers {answer.status}: {(await answer.text())[:500]}")
        found = await answer.json()
        if answer.status == 200:
            if contract.user_of(found["Config"]["Labels"]) is None:
                raise contract.ContractViolation(f"{name} is not a session")
            return found["Id"], web.json_response(found)
        return "", web.json_response(found, status=answer.status)


async def _inspect(request: web.Request) -> web.Response:
    _, answer = await _session(request)
    return answer


async def _start(request: web.Request) -> web.Response:
    container_id, answer = await _session(request)
    if not container_id:
        return answer
    # Old versions of the API took a host configuration here: no body goes on.
    return await _docker(request, "POST", f"/containers/{container_id}/start")


async def _stop(request: web.Request) -> web.Response:
    container_id, answer = await _session(request)
    if not container_id:
        return answer
    return await _docker(request, "POST", f"/containers/{container_id}/stop", params={"t": str(_STOP_SECONDS)})


async def _remove(request: web.Request) -> web.Response:
    container_id, answer = await _session(request)
    if not container_id:
        return answer
    return await _docker(request, "DELETE", f"/containers/{container_id}", params={"v": "true", "force": "true"})


def application(sessions: Sessions, hub_uid: int, docker_socket: str = DOCKER_SOCKET) -> web.Application:
    """Make the gate.

    :param sessions: sessions.yml
    :param hub_uid: the only user that is answered
    :param docker_socket: Docker's own socket
    """
    app = web.Application(middlewares=[only_for(hub_uid), _errors], client_max_size=_MAX_BODY)
    app[_SETTINGS] = sessions

    async def docker_client(app: web.Application) -> Any:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(docker_socket), timeout=_TIMEOUT) as client:
            app[_DOCKER] = client
            yield

    app.cleanup_ctx.append(docker_client)
    for prefix in ("", r"/v{version:1\.\d+}"):
        app.router.add_get(f"{prefix}/_ping", _ping)
        app.router.add_get(f"{prefix}/version", _version)
        app.router.add_get(f"{prefix}/images/{{reference:.+}}/json", _inspect_image)
        app.router.add_post(f"{prefix}/containers/create", _create)
        app.router.add_get(f"{prefix}/containers/{{id}}/json", _inspect)
        app.router.add_post(f"{prefix}/containers/{{id}}/start", _start)
        app.router.add_post(f"{prefix}/containers/{{id}}/stop", _stop)
        app.router.add_delete(f"{prefix}/containers/{{id}}", _remove)
    return app


def main() -> None:
    """Run as the systemd service."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    app = application(settings.load_sessions(), pwd.getpwnam(peer.HUB_USER).pw_uid)
    web.run_app(app, sock=peer.socket_from_systemd(), print=None, access_log=None)

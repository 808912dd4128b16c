"""The gate between hub and Docker, with a Docker that records what reaches it. The real one is tested on a host."""

import asyncio
import functools
import json
import os
import pwd
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from labstead import contract, gate, identity, seccomp
from labstead.settings import Image, Sessions

SESSIONS = Sessions(images=(Image(name="base", title="Base", reference="labstead/base:1"),))
PERSON = identity.Identity.model_validate(
    {"name": "anna", "uid": 20001, "gid": 20001, "groups": (20001,), "home": "/home/anna", "shell": "/bin/bash"}
)
SESSION_ID = "a" * 64
OTHER_ID = "b" * 64
PROFILE = '{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[]}'
LOOK = ("GET", "/images/labstead/base:1/json")
"""What the gate asks before it has a container made."""

load_profile = seccomp.load


class RecordingDocker:
    """Knows one session and one container of somebody else."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, bytes]] = []
        self.image: tuple[int, dict[str, Any]] = (200, {"Id": "sha256:ab", "Config": {"Volumes": None}})

    async def answer(self, request: web.Request) -> web.Response:
        self.calls.append((request.method, request.path_qs, await request.read()))
        if request.path in (f"/containers/{SESSION_ID}/json", "/containers/labstead-session-anna/json"):
            labels = {contract.LABEL_USER: "anna"}
            return web.json_response({"Id": SESSION_ID, "Config": {"Labels": labels}})
        if request.path in (f"/containers/{OTHER_ID}/json", "/containers/database/json"):
            return web.json_response({"Id": OTHER_ID, "Config": {"Labels": {}}})
        if request.path.startswith("/images/"):
            return web.json_response(self.image[1], status=self.image[0])
        if request.path == "/containers/broken/json":
            return web.Response(text="driver failed", status=500)
        if request.path.endswith("/json") and request.path.startswith("/containers/"):
            return web.json_response({"message": "No such container"}, status=404)
        return web.json_response({"Id": SESSION_ID})


class Hub:
    """A client of the gate."""

    def __init__(self, http: aiohttp.ClientSession, docker: RecordingDocker) -> None:
        self._http, self.docker = http, docker

    async def ask(self, method: str, path: str, **kwargs: Any) -> tuple[int, Any]:
        async with self._http.request(method, f"http://gate{path}", **kwargs) as answer:
            return answer.status, await answer.json()


Test = Callable[[Hub], Awaitable[None]]


async def _serve(app: web.Application, path: str) -> web.AppRunner:
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, path).start()
    return runner


async def _with_gate(tmp_path: Path, uid: int) -> AsyncIterator[Hub]:
    docker = RecordingDocker()
    docker_app = web.Application()
    docker_app.router.add_route("*", "/{path:.*}", docker.answer)
    runners = [
        await _serve(docker_app, str(tmp_path / "docker")),
        await _serve(gate.application(SESSIONS, uid, str(tmp_path / "docker")), str(tmp_path / "gate")),
    ]
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "gate"))) as http:
            yield Hub(http, docker)
    finally:
        for runner in runners:
            await runner.cleanup()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give a function that runs a test's coroutine with a gate."""
    monkeypatch.setattr(identity, "look_up", lambda name: PERSON if name == "anna" else _unknown(name))

    sessions = tmp_path / "sessions"
    (sessions / "anna").mkdir(parents=True)
    (sessions / "anna" / "passwd").touch()
    monkeypatch.setattr(identity, "SESSIONS_DIR", sessions)
    monkeypatch.setattr(contract, "SESSIONS_DIR", sessions)
    monkeypatch.setattr(seccomp, "load", lambda: PROFILE)

    def _unknown(name: str) -> Any:
        pwd.getpwnam(name)  # raises
        raise AssertionError

    def _run(test: Test, uid: int | None = None) -> None:
        async def go() -> None:
            async for hub in _with_gate(tmp_path, os.getuid() if uid is None else uid):
                await asyncio.wait_for(test(hub), 30)

        asyncio.run(go())

    return _run


def body(**changes: Any) -> dict[str, Any]:
    return contract.container(PERSON, "labstead/base:1", ["x"], ["A=b"], SESSIONS, PROFILE) | changes


def test_a_session_of_the_contract_is_created(run: Callable[..., None]) -> None:
    async def test(hub: Hub) -> None:
        status, _ = await hub.ask("POST", "/v1.45/containers/create?name=labstead-session-anna", json=body())
        assert status == 200
        made = ("POST", "/containers/create?name=labstead-session-anna")
        assert [call[:2] for call in hub.docker.calls] == [LOOK, made]

    run(test)


def test_a_group_folder_is_the_one_that_the_gate_finds(
    tmp_path: Path, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = (tmp_path / "ocean",)
    monkeypatch.setattr(identity, "with_folders", lambda person, *_: person.model_copy(update={"folders": folders}))
    path = "/containers/create?name=labstead-session-anna"

    async def test(hub: Hub) -> None:
        for found, expected in ((folders, 200), ((), 403), ((tmp_path / "ice",), 403)):
            person = PERSON.model_copy(update={"folders": found})
            asked = contract.container(person, "labstead/base:1", ["x"], ["A=b"], SESSIONS, PROFILE)
            assert (await hub.ask("POST", path, json=asked))[0] == expected
        assert [call[0] for call in hub.docker.calls] == ["GET", "POST"]

    run(test)


@pytest.mark.parametrize("changes", [{"User": "0:0"}, {"HostConfig": {"Privileged": True}}, {"Labels": {}}])
def test_a_body_outside_the_contract_never_reaches_docker(run: Callable[..., None], changes: dict[str, Any]) -> None:
    async def test(hub: Hub) -> None:
        path = "/containers/create?name=labstead-session-anna"
        status, answer = await hub.ask("POST", path, json=body(**changes))
        assert status == 403
        assert "labstead-gate" in answer["message"]
        assert hub.docker.calls == []

    run(test)


def test_an_image_with_volumes_of_its_own_is_refused(run: Callable[..., None]) -> None:
    async def test(hub: Hub) -> None:
        hub.docker.image = 200, {"Config": {"Volumes": {"/srv/data": {}}}}
        status, answer = await hub.ask("POST", "/containers/create?name=labstead-session-anna", json=body())
        assert status == 403
        assert "labstead/base:1 declares VOLUME /srv/data" in answer["message"]
        assert [call[:2] for call in hub.docker.calls] == [LOOK]

    run(test)


def test_of_an_image_that_is_not_there_docker_tells(run: Callable[..., None]) -> None:
    async def test(hub: Hub) -> None:
        hub.docker.image = 404, {"message": "No such image"}
        await hub.ask("POST", "/containers/create?name=labstead-session-anna", json=body())
        assert [call[0] for call in hub.docker.calls] == ["GET", "POST"]

    run(test)


def test_without_a_profile_nothing_is_created(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(hub: Hub) -> None:
        asked = body()
        monkeypatch.setattr(seccomp, "load", functools.partial(load_profile, Path("/none/seccomp.json")))
        status, answer = await hub.ask("POST", "/containers/create?name=labstead-session-anna", json=asked)
        assert status == 403
        assert "seccomp.json: No such file or directory; site.yml writes this file" in answer["message"]
        assert hub.docker.calls == []

    run(test)


def test_of_two_keys_of_one_name_what_was_checked_is_what_docker_gets(run: Callable[..., None]) -> None:
    """JSON with a key twice reads differently in different parsers; the gate writes its own."""
    text = web.json_response(body()).text
    assert text is not None
    twice = '{"HostConfig": {"Privileged": true}, ' + text[1:]

    async def test(hub: Hub) -> None:
        status, _ = await hub.ask("POST", "/containers/create?name=labstead-session-anna", data=twice)
        assert status == 200
        assert b"Privileged" not in hub.docker.calls[-1][2]

    run(test)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/containers/json"),
        ("GET", "/info"),
        ("POST", "/build"),
        ("POST", "/images/create?fromImage=alpine"),
        ("DELETE", "/images/labstead%2Fbase:1"),
        ("GET", "/images/alpine/json"),
        ("POST", "/containers/labstead-session-anna/exec"),
        ("POST", "/containers/labstead-session-anna/update"),
        ("GET", "/containers/labstead-session-anna/archive?path=/etc"),
        ("PUT", "/containers/labstead-session-anna/archive?path=/"),
        ("POST", "/containers/labstead-session-anna/attach"),
        ("GET", "/containers/labstead-session-anna/logs"),
        ("POST", "/exec/x/start"),
        ("POST", "/volumes/create"),
        ("POST", "/networks/create"),
        ("POST", "/networks/labstead/connect"),
        ("POST", "/swarm/init"),
        ("POST", "/plugins/pull"),
        ("GET", "/secrets"),
        ("GET", "/events"),
        ("GET", "/containers/..%2fimages/json"),
        ("GET", "/v1.45/v1.45/version"),
    ],
)
def test_other_calls_never_reach_docker(run: Callable[..., None], method: str, path: str) -> None:
    async def test(hub: Hub) -> None:
        status, _ = await hub.ask(method, path)
        assert status == 403
        assert hub.docker.calls == []

    run(test)


@pytest.mark.parametrize(("method", "call"), [("GET", "/json"), ("POST", "/start"), ("POST", "/stop"), ("DELETE", "")])
@pytest.mark.parametrize("name", ["database", OTHER_ID])
def test_containers_of_others_are_left_alone(run: Callable[..., None], method: str, call: str, name: str) -> None:
    async def test(hub: Hub) -> None:
        status, answer = await hub.ask(method, f"/containers/{name}{call}")
        assert status == 403
        assert "is not a session" in answer["message"]
        assert [asked[0] for asked in hub.docker.calls] == ["GET"]

    run(test)


def test_a_start_passes_no_body_on(run: Callable[..., None]) -> None:
    async def test(hub: Hub) -> None:
        await hub.ask("POST", "/containers/labstead-session-anna/start", json={"Privileged": True})
        assert hub.docker.calls[-1] == ("POST", f"/containers/{SESSION_ID}/start", b"")

    run(test)


def test_a_session_that_is_gone_is_404(run: Callable[..., None]) -> None:
    async def test(hub: Hub) -> None:
        for method, path in [("GET", "/json"), ("POST", "/start"), ("POST", "/stop"), ("DELETE", "")]:
            status, _ = await hub.ask(method, f"/containers/labstead-session-ben{path}")
            assert status == 404
        assert {call[0] for call in hub.docker.calls} == {"GET"}

    run(test)


def test_a_session_that_the_accounts_service_did_not_open_is_refused(tmp_path: Path, run: Callable[..., None]) -> None:
    async def test(hub: Hub) -> None:
        (tmp_path / "sessions" / "anna" / "passwd").unlink()
        status, answer = await hub.ask("POST", "/containers/create?name=labstead-session-anna", json=body())
        assert status == 403
        assert "has not opened a session" in answer["message"]
        assert hub.docker.calls == []

    run(test)


def test_a_fault_of_dockers_is_503(run: Callable[..., None]) -> None:
    """DockerSpawner takes 500 to mean that the container is gone."""

    async def test(hub: Hub) -> None:
        for method, call in [("GET", "/json"), ("POST", "/stop")]:
            status, _ = await hub.ask(method, f"/containers/broken{call}")
            assert status == 503

    run(test)


@pytest.mark.parametrize("label", ["a\0b", "\ud800", "x" * 5000, "../anna"])
def test_a_label_that_is_no_name_is_refused(run: Callable[..., None], label: str) -> None:
    async def test(hub: Hub) -> None:
        text = json.dumps(body(Labels={contract.LABEL_USER: label}))
        status, _ = await hub.ask("POST", "/containers/create?name=labstead-session-anna", data=text)
        assert status == 403
        assert hub.docker.calls == []

    run(test)


def test_another_user_gets_no_answer(run: Callable[..., None]) -> None:
    async def test(hub: Hub) -> None:
        status, _ = await hub.ask("GET", "/version")
        assert status == 403
        assert hub.docker.calls == []

    run(test, os.getuid() + 1)


def test_a_docker_that_is_away_is_503(tmp_path: Path, run: Callable[..., None]) -> None:
    async def test(hub: Hub) -> None:
        (tmp_path / "docker").unlink()
        status, _ = await hub.ask("GET", "/containers/labstead-session-anna/json")
        assert status == 503

    run(test)

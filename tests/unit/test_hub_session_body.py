"""What the hub asks the gate for when a session starts, without Docker: the body that the gate would make itself."""

import asyncio
import re
from typing import Any

import pytest
from jupyterhub import orm
from jupyterhub.user import User
from traitlets.config import Config

from labstead import contract, seccomp
from labstead.hub import configure
from labstead.hub.spawner import LabsteadSpawner
from labstead.identity import Identity
from labstead.settings import Hub, Image, SessionCompute, Sessions

HUB = Hub(url="https://hub.example.org", address="172.31.240.1", admins=("carla",))
PERSON = Identity.model_validate(
    {"name": "anna", "uid": 20001, "gid": 20001, "groups": (20001,), "home": "/home/anna", "shell": "/bin/bash"}
)
WITHOUT = Sessions(images=(Image(name="a", title="A", reference="x/a:1"),))
WITH = WITHOUT.model_copy(update={"compute": SessionCompute()})
IMAGE_ID = "sha256:0123456789abcdef" + 48 * "0"


class Accounts:
    """Lets everybody in."""

    def open_session(self, name: str) -> Identity:
        assert name == "anna"
        return PERSON


def asked(monkeypatch: pytest.MonkeyPatch, sessions: Sessions) -> tuple[dict[str, Any], dict[str, str]]:
    """Give the body, and its environment."""
    bodies: list[dict[str, Any]] = []

    async def docker(_spawner: LabsteadSpawner, method: str, *arguments: Any) -> Any:
        if method == "inspect_image":
            return {"Id": IMAGE_ID}
        assert method == "create_container_from_config"
        bodies.append(arguments[0])
        return {"Id": "c"}

    monkeypatch.setattr(LabsteadSpawner, "accounts", Accounts())
    monkeypatch.setattr(LabsteadSpawner, "docker", docker)
    monkeypatch.setattr(LabsteadSpawner, "get_env", lambda _spawner: {"JUPYTERHUB_API_TOKEN": "x"})
    monkeypatch.setattr(seccomp, "load", lambda: "{}")
    c = Config()
    configure.apply(c, HUB, sessions)
    db = orm.new_session_factory("sqlite:///:memory:")()
    anna = orm.User(name="anna")
    db.add(anna)
    db.commit()
    spawner = User(anna, {"spawner_class": LabsteadSpawner, "config": c}).spawners[""]
    spawner.image = "x/a:1"
    asyncio.run(spawner.create_object())
    (body,) = bodies
    return body, dict(line.split("=", 1) for line in body["Env"])


@pytest.mark.parametrize("sessions", [WITHOUT, WITH])
def test_the_gate_would_make_the_same(monkeypatch: pytest.MonkeyPatch, sessions: Sessions) -> None:
    body, _ = asked(monkeypatch, sessions)
    assert contract.checked(body, contract.container_name("anna"), PERSON, sessions, "{}") == body


def test_where_there_is_slurm_each_session_has_certificates_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    bundles = {asked(monkeypatch, WITH)[1]["LABSTEAD_TLS"] for _ in range(2)}
    assert len(bundles) == 2
    for bundle in bundles:
        assert re.findall("BEGIN (.*)-----", bundle) == ["CERTIFICATE", "CERTIFICATE", "PRIVATE KEY"]


def test_workers_run_in_the_image_of_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    _, environment = asked(monkeypatch, WITH)
    assert environment["LABSTEAD_IMAGE"] == "0123456789ab"
    assert " --dask 0123456789ab " in environment["DASK_JOBQUEUE__SLURM__PYTHON"]


def test_without_slurm_there_is_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, environment = asked(monkeypatch, WITHOUT)
    assert not [name for name in environment if name.startswith(("DASK", "LABSTEAD"))]


def test_variables_of_the_site_have_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"DASK_JOBQUEUE__SLURM__LOCAL_DIRECTORY": "/fast", "LABSTEAD_CLUSTERS": "9"}
    _, environment = asked(monkeypatch, WITH.model_copy(update={"environment": own}))
    assert own.items() <= environment.items()

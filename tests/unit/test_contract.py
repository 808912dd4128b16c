"""The container contract: what is asked for, and what is refused."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest

from labstead import contract
from labstead.errors import BadInput
from labstead.identity import Identity
from labstead.settings import Image, Sessions

PERSON = Identity.model_validate(
    {"name": "anna", "uid": 20001, "gid": 20001, "groups": (20001, 30000), "home": "/home/anna", "shell": "/bin/bash"}
)
SETTINGS = Sessions(
    images=(Image(name="base", title="Base", reference="labstead/base:1"),),
    memory=2**31,
    cpus=1.5,
    pids=300,
    tmp_size=2**28,
)
NAME = "labstead-session-anna"
PROFILE = '{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[]}'


def body() -> dict[str, Any]:
    return contract.container(PERSON, "labstead/base:1", ["server"], ["A=b"], SETTINGS, PROFILE)


def test_a_session_runs_as_its_user_with_all_groups_and_nothing_more() -> None:
    host = body()["HostConfig"]
    assert body()["User"] == "20001:20001"
    assert host["GroupAdd"] == ["20001", "30000"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true", f"seccomp={PROFILE}"]
    assert "Privileged" not in host
    assert "CapAdd" not in host


def test_limits_are_in_dockers_units() -> None:
    host = body()["HostConfig"]
    assert host["Memory"] == 2147483648
    assert host["MemorySwap"] == 2147483648
    assert host["NanoCpus"] == 1_000_000_000 * min(1.5, os.cpu_count() or 1)
    assert host["PidsLimit"] == 300
    assert host["Tmpfs"]["/tmp"].endswith("size=268435456")


def test_more_cores_than_the_machine_has_are_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker refuses to start a container with more."""
    monkeypatch.setattr(contract.os, "cpu_count", lambda: 2)
    settings = SETTINGS.model_copy(update={"cpus": 4.0})
    host = contract.container(PERSON, "labstead/base:1", [], [], settings, PROFILE)["HostConfig"]
    assert host["NanoCpus"] == 2_000_000_000


def test_mounts_are_the_own_home_writable_and_all_else_read_only() -> None:
    mounts = {mount["Target"]: (mount["Source"], mount["ReadOnly"]) for mount in body()["HostConfig"]["Mounts"]}
    assert mounts == {
        "/home": ("/home", True),
        "/home/anna": ("/home/anna", False),
        "/data": ("/data", True),
        "/etc/passwd": ("/run/labstead/sessions/anna/passwd", True),
        "/etc/group": ("/run/labstead/sessions/anna/group", True),
    }


def test_group_folders_are_writable_at_their_own_paths() -> None:
    person = PERSON.model_copy(update={"folders": (Path("/groups/ice"), Path("/groups/ocean"))})
    asked = contract.container(person, "labstead/base:1", [], [], SETTINGS, PROFILE)
    added = [mount for mount in asked["HostConfig"]["Mounts"] if mount not in body()["HostConfig"]["Mounts"]]
    assert [(mount["Source"], mount["Target"], mount["ReadOnly"]) for mount in added] == [
        ("/groups/ice", "/groups/ice", False),
        ("/groups/ocean", "/groups/ocean", False),
    ]
    assert contract.checked(asked, NAME, person, SETTINGS, PROFILE) == asked
    assert contract.environment(person, "x", SETTINGS)["GROUP_FOLDERS"] == "/groups/ice:/groups/ocean"
    assert "GROUP_FOLDERS" not in contract.environment(PERSON, "x", SETTINGS)
    # Somebody who is not in the groups gets none of them, whatever the hub asks for.
    with pytest.raises(contract.ContractViolation, match=r"HostConfig\.Mounts differs"):
        contract.checked(asked, NAME, PERSON, SETTINGS, PROFILE)


def test_scratch_is_writable_at_its_own_path() -> None:
    person = PERSON.model_copy(update={"scratch": Path("/scratch/anna")})
    asked = contract.container(person, "labstead/base:1", [], [], SETTINGS, PROFILE)
    added = [mount for mount in asked["HostConfig"]["Mounts"] if mount not in body()["HostConfig"]["Mounts"]]
    assert [(mount["Source"], mount["Target"], mount["ReadOnly"]) for mount in added] == [
        ("/scratch/anna", "/scratch/anna", False)
    ]
    assert contract.checked(asked, NAME, person, SETTINGS, PROFILE) == asked
    variables = contract.environment(person, "x", SETTINGS)
    assert variables["SCRATCH"] == variables["PANGEO_SCRATCH"] == "/scratch/anna"
    assert not {"SCRATCH", "PANGEO_SCRATCH"} & contract.environment(PERSON, "x", SETTINGS).keys()
    # Where the gate finds none there is none, whatever the hub asks for.
    with pytest.raises(contract.ContractViolation, match=r"HostConfig\.Mounts differs"):
        contract.checked(asked, NAME, PERSON, SETTINGS, PROFILE)


def test_nothing_of_a_session_lies_on_dockers_own_disk() -> None:
    """What is left for it to write is in memory, with a size, or has a limit of its own."""
    host = body()["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert all("size=" in options for options in host["Tmpfs"].values())
    assert host["LogConfig"] == {"Type": "local", "Config": {"max-size": "10m", "max-file": "2"}}
    assert host["Ulimits"] == [{"Name": "core", "Soft": 0, "Hard": 0}]
    assert {mount["Type"] for mount in host["Mounts"]} == {"bind"}


def test_an_image_with_volumes_is_refused() -> None:
    for found in ({}, {"Config": None}, {"Config": {}}, {"Config": {"Volumes": None}}, {"Config": {"Volumes": {}}}):
        contract.refuse_volumes("labstead/base:1", found)
    with pytest.raises(contract.ContractViolation, match=r"image big:1 declares VOLUME /a /var/b, .* sessions_images"):
        contract.refuse_volumes("big:1", {"Config": {"Volumes": {"/var/b": {}, "/a": {}}}})


def test_the_environment_tells_who_and_where() -> None:
    variables = contract.environment(PERSON, "labstead/base:1@sha256:ab", SETTINGS)
    expected = {"HOME": "/home/anna", "USER": "anna", "LOGNAME": "anna", "SHELL": "/bin/bash", "DATA": "/data"}
    assert expected.items() <= variables.items()
    assert variables["JUPYTER_IMAGE_SPEC"] == "labstead/base:1@sha256:ab"
    assert "SSL_CERT_FILE" not in variables


def test_site_certificates_reach_the_session() -> None:
    settings = SETTINGS.model_copy(update={"ca_bundle": Path("/etc/ssl/certs/ca-certificates.crt")})
    variables = contract.environment(PERSON, "x", settings)
    mounts = contract.container(PERSON, "labstead/base:1", [], [], settings, PROFILE)["HostConfig"]["Mounts"]
    assert {mount["Target"]: mount["Source"] for mount in mounts}[variables["SSL_CERT_FILE"]] == (
        "/etc/ssl/certs/ca-certificates.crt"
    )


def test_what_the_contract_makes_is_accepted() -> None:
    assert contract.checked(body(), NAME, PERSON, SETTINGS, PROFILE) == body()


#: Each would give a user the machine or somebody else's files: path into the body → value.
ATTACKS: list[tuple[tuple[str | int, ...], object]] = [
    (("User",), "0:0"),
    (("User",), "20001:27"),
    (("User",), ""),
    (("Entrypoint",), ["/bin/sh"]),
    (("Image",), None),
    (("Cmd",), "sh -c id"),
    (("Env",), [1]),
    (("Labels", "org.labstead.user"), "ben"),
    (("WorkingDir",), "/root"),
    (("HostConfig", "Privileged"), True),
    (("HostConfig", "Binds"), ["/:/host"]),
    (("HostConfig", "CapAdd"), ["SYS_ADMIN"]),
    (("HostConfig", "CapDrop"), []),
    (("HostConfig", "SecurityOpt"), []),
    (("HostConfig", "SecurityOpt"), ["no-new-privileges:true", "seccomp=unconfined"]),
    (("HostConfig", "SecurityOpt"), ["no-new-privileges:true"]),
    (("HostConfig", "SecurityOpt"), ["no-new-privileges:true", "seccomp={}"]),
    (("HostConfig", "SecurityOpt", 1), f"seccomp={PROFILE} "),
    (("HostConfig", "GroupAdd"), ["20001", "30000", "0"]),
    (("HostConfig", "NetworkMode"), "host"),
    (("HostConfig", "NetworkMode"), "container:other"),
    (("HostConfig", "PidMode"), "host"),
    (("HostConfig", "IpcMode"), "host"),
    (("HostConfig", "UTSMode"), "host"),
    (("HostConfig", "UsernsMode"), "host"),
    (("HostConfig", "CgroupnsMode"), "host"),
    (("HostConfig", "CgroupParent"), "/"),
    (("HostConfig", "Devices"), [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda"}]),
    (("HostConfig", "DeviceRequests"), [{"Count": -1}]),
    (("HostConfig", "Sysctls"), {"net.ipv4.ip_forward": "1"}),
    (("HostConfig", "Runtime"), "other"),
    (("HostConfig", "VolumesFrom"), ["other"]),
    (("HostConfig", "PortBindings"), {"8888/tcp": [{"HostPort": "80"}]}),
    (("HostConfig", "RestartPolicy"), {"Name": "always"}),
    (("HostConfig", "AutoRemove"), False),
    (("HostConfig", "Init"), 1),
    (("HostConfig", "Memory"), 0),
    (("HostConfig", "MemorySwap"), -1),
    (("HostConfig", "NanoCpus"), 0),
    (("HostConfig", "PidsLimit"), -1),
    (("HostConfig", "LogConfig", "Type"), "syslog"),
    (("HostConfig", "LogConfig", "Config", "max-size"), "-1"),
    (("HostConfig", "ReadonlyRootfs"), False),
    (("HostConfig", "StorageOpt"), {"size": "1T"}),
    (("HostConfig", "Ulimits"), []),
    (("HostConfig", "Tmpfs", "/etc"), "rw"),
    (("HostConfig", "Mounts", 0, "ReadOnly"), False),
    (("HostConfig", "Mounts", 0, "Source"), "/"),
    (("HostConfig", "Mounts", 1, "Source"), "/home/ben"),
    (("HostConfig", "Mounts", 1, "Target"), "/home/ben"),
    (("HostConfig", "Mounts", 2, "BindOptions", "Propagation"), "rshared"),
    (("HostConfig", "Mounts", 3, "Source"), "/etc/shadow"),
    (("Volumes",), {"/x": {}}),
    (("NetworkingConfig",), {"EndpointsConfig": {"host": {}}}),
    (("Healthcheck",), {"Test": ["CMD", "id"]}),
    (("NoSuchKey",), 1),
]


@pytest.mark.parametrize(("path", "value"), ATTACKS, ids=str)
def test_a_body_that_differs_anywhere_is_refused(path: tuple[str | int, ...], value: object) -> None:
    asked: Any = copy.deepcopy(body())
    spot = asked
    for part in path[:-1]:
        spot = spot[part]
    spot[path[-1]] = value
    with pytest.raises(contract.ContractViolation):
        contract.checked(asked, NAME, PERSON, SETTINGS, PROFILE)


def test_an_added_or_a_missing_mount_is_refused() -> None:
    for change in (
        lambda mounts: mounts.append({"Type": "bind", "Source": "/run/docker.sock", "Target": "/d"}),
        lambda mounts: mounts.pop(),
    ):
        asked = copy.deepcopy(body())
        change(asked["HostConfig"]["Mounts"])
        with pytest.raises(contract.ContractViolation, match=r"HostConfig\.Mounts differs"):
            contract.checked(asked, NAME, PERSON, SETTINGS, PROFILE)


def test_a_missing_key_is_refused() -> None:
    asked = body()
    del asked["HostConfig"]["CapDrop"]
    with pytest.raises(contract.ContractViolation, match=r"HostConfig\.CapDrop is missing"):
        contract.checked(asked, NAME, PERSON, SETTINGS, PROFILE)


def test_another_name_or_image_is_refused() -> None:
    with pytest.raises(contract.ContractViolation, match="is named labstead-session-anna"):
        contract.checked(body(), "labstead-session-ben", PERSON, SETTINGS, PROFILE)
    with pytest.raises(BadInput, match="not one of the allowed images"):
        contract.checked(body() | {"Image": "alpine"}, NAME, PERSON, SETTINGS, PROFILE)


@pytest.mark.parametrize("asked", [None, [], "x", 3])
def test_a_body_that_is_no_object_is_refused(asked: object) -> None:
    with pytest.raises(contract.ContractViolation):
        contract.checked(asked, NAME, PERSON, SETTINGS, PROFILE)

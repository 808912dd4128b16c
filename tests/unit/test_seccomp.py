"""The seccomp profile: every ioctl but the forbidden ones, and nothing else changed. Docker takes it on a host."""

import copy
import json
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from labstead import seccomp
from labstead.errors import BadInput

#: As strace(1) prints their numbers (xlat/ of its source): FS_IOC_SETFLAGS, FS_IOC32_SETFLAGS, FS_IOC_FSSETXATTR,
#: BTRFS_IOC_SNAP_CREATE, BTRFS_IOC_SUBVOL_CREATE, BTRFS_IOC_SNAP_CREATE_V2, BTRFS_IOC_SUBVOL_CREATE_V2,
#: BTRFS_IOC_SUBVOL_SETFLAGS.
FORBIDDEN = {0x40086602, 0x40046602, 0x401C5820, 0x50009401, 0x5000940E, 0x50009417, 0x50009418, 0x4008941A}

#: What terminals, pip, git, cp and ls need: TCGETS, TIOCGWINSZ, TIOCSWINSZ, FIONREAD, FIONBIO, FIOCLEX, TIOCGPTN,
#: FICLONE, FICLONERANGE, FIDEDUPERANGE, FS_IOC_GETFLAGS, FS_IOC_FSGETXATTR, SIOCGIFCONF, BTRFS_IOC_TREE_SEARCH.
ORDINARY = {
    *(0x5401, 0x5413, 0x5414, 0x541B, 0x5421, 0x5451, 0x80045430, 0x40049409, 0x4020940D, 0xC0189436),
    *(0x80086601, 0x801C581F, 0x8912, 0xD0009411, 0, 0xFFFFFFFF),
}

#: The form of Docker's, shortened.
DOCKERS: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "syscalls": [
        {"names": ["accept", "ioctl", "write"], "action": "SCMP_ACT_ALLOW"},
        {
            "names": ["personality"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 4294967295, "op": "SCMP_CMP_EQ"}],
        },
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
    ],
}


def passes(profile: dict[str, Any], number: int) -> bool:
    """Tell whether an ioctl passes, by the rules of seccomp_rule_add(3): one that matches is enough."""
    for rule in profile["syscalls"]:
        if "ioctl" in rule["names"] and rule["action"] == "SCMP_ACT_ALLOW":
            for arg in rule["args"]:
                assert arg["index"] == 1
                assert arg["op"] == "SCMP_CMP_MASKED_EQ"
            if all(number & arg["value"] == arg["valueTwo"] for arg in rule["args"]):
                return True
    return False


@pytest.fixture(scope="module")
def profile() -> dict[str, Any]:
    return seccomp.restrict(DOCKERS)


def test_the_forbidden_ioctls_do_not_pass_whatever_is_above_their_32_bits(profile: dict[str, Any]) -> None:
    for number in FORBIDDEN:
        for above in (0, 1, 2**31, 2**32 - 1):
            assert not passes(profile, above << 32 | number), hex(number)


def test_every_other_ioctl_passes(profile: dict[str, Any]) -> None:
    near = {number ^ bits for number in FORBIDDEN for bits in (*(1 << bit for bit in range(32)), 3, 7, 0xFF, 0xFFFF)}
    near |= {(number + step) % 2**32 for number in FORBIDDEN for step in (-2, -1, 1, 2)}
    for number in (near | ORDINARY | set(range(0, 2**32, 858_993))) - FORBIDDEN:
        assert passes(profile, number), hex(number)
        assert passes(profile, number << 32 | number), hex(number)


@pytest.mark.parametrize(
    "forbidden", [(), (0,), (15,), (3, 9), (0, 1, 2, 3), (1, 4, 6, 7, 15), range(1, 16), range(16)]
)
def test_all_but_some_of_sixteen_are_counted(forbidden: Collection[int]) -> None:
    blocks = list(seccomp.all_but(forbidden, 4))
    covered = [number for number in range(16) for mask, value in blocks if number & mask & 15 == value]
    assert sorted(covered) == sorted(set(range(16)) - set(forbidden))


def test_nothing_else_of_the_profile_is_changed(profile: dict[str, Any]) -> None:
    before = copy.deepcopy(DOCKERS)
    assert profile["syscalls"][:3] == [
        {"names": ["accept", "write"], "action": "SCMP_ACT_ALLOW"},
        *DOCKERS["syscalls"][1:],
    ]
    assert all(rule["names"] == ["ioctl"] for rule in profile["syscalls"][3:])
    assert {key: profile[key] for key in profile if key != "syscalls"} == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    }
    assert before == DOCKERS


def test_a_docker_that_allows_file_setattr_is_not_followed() -> None:
    found = copy.deepcopy(DOCKERS)
    found["syscalls"][0]["names"].append("file_setattr")
    found["syscalls"].append({"names": ["file_setattr"], "action": "SCMP_ACT_ALLOW"})
    assert seccomp.restrict(found) == seccomp.restrict(DOCKERS)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"defaultAction": "SCMP_ACT_ALLOW"},
        {"defaultAction": "SCMP_ACT_LOG"},
        {"syscalls": None},
        {"syscalls": [{"names": ["accept"], "action": "SCMP_ACT_ALLOW"}]},
        {"syscalls": [{"names": ["ioctl"], "action": "SCMP_ACT_ERRNO"}]},
        {"syscalls": [*DOCKERS["syscalls"], {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO"}]},
        {"syscalls": [{"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1}]}]},
    ],
    ids=str,
)
def test_a_profile_of_another_kind_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(seccomp.SeccompError, match=r"daemon\.json"):
        seccomp.restrict({**DOCKERS, **change} if change else {})


# --- the file


class Docker:
    """Says what Docker would: a container's configuration lies where containerd puts it."""

    def __init__(self, root: Path) -> None:
        self.bundle = root / "run/{}/config.json"
        self.default: dict[str, Any] = DOCKERS
        self.refusal = ""
        self.tried: list[str] = []
        self.ended: list[str] = []

    def __call__(self, *words: str) -> str:
        if words[0] == "kill":
            self.ended.append(words[1])
            return ""
        assert "--cap-drop=ALL" in words
        assert "--network=none" in words
        if "--detach" in words:
            folder = Path(str(self.bundle).format("abc")).parent
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").write_text(json.dumps({"linux": {"seccomp": self.default}}), encoding="utf-8")
            return "abc"
        (option,) = (word for word in words if word.startswith("--security-opt=seccomp="))
        self.tried.append(Path(option.rpartition("=")[2]).read_text(encoding="utf-8"))
        if self.refusal:
            raise seccomp.SeccompError(self.refusal)
        return ""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    found = Docker(tmp_path)
    monkeypatch.setattr(seccomp, "_docker", found)
    monkeypatch.setattr(seccomp, "_BUNDLES", (str(tmp_path / "nowhere/{}/config.json"), str(found.bundle)))
    return found


def test_the_file_is_written_once_and_after_a_trial(docker: Docker, tmp_path: Path) -> None:
    path = tmp_path / "seccomp.json"
    assert seccomp.ensure("base:1", path) is True
    first = path.stat()
    assert stat.S_IMODE(first.st_mode) == 0o644
    assert [json.loads(text) for text in docker.tried] == [seccomp.restrict(DOCKERS)]
    assert seccomp.load(path) == docker.tried[0].strip()
    assert seccomp.ensure("base:1", path) is False
    assert path.stat().st_ino == first.st_ino
    docker.default = {**DOCKERS, "architectures": ["SCMP_ARCH_AARCH64"]}
    assert seccomp.ensure("base:1", path) is True
    assert json.loads(seccomp.load(path))["architectures"] == ["SCMP_ARCH_AARCH64"]
    assert docker.ended == ["abc"] * 3
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".new")] == []


def test_a_profile_that_does_not_work_is_not_put_in_place(docker: Docker, tmp_path: Path) -> None:
    path = tmp_path / "seccomp.json"
    docker.refusal = "docker run: ioctl 0x40086602 is not refused"
    with pytest.raises(seccomp.SeccompError, match=r"base:1 does not run with the seccomp profile .*0x40086602 is not"):
        seccomp.ensure("base:1", path)
    assert not path.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


@pytest.mark.usefixtures("docker")
def test_a_docker_whose_containers_are_not_found_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "_BUNDLES", (str(tmp_path / "nowhere/{}/config.json"),))
    with pytest.raises(seccomp.SeccompError, match=r"no configuration of a running container in .*nowhere; Docker has"):
        seccomp.ensure("base:1", tmp_path / "seccomp.json")


def test_a_docker_without_any_profile_is_refused(docker: Docker, tmp_path: Path) -> None:
    docker.default = {}
    with pytest.raises(seccomp.SeccompError, match=r"seccomp-profile in /etc/docker/daemon.json"):
        seccomp.ensure("base:1", tmp_path / "seccomp.json")
    assert docker.ended == ["abc"]


def test_without_a_file_it_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"seccomp\.json: No such file or directory; site\.yml writes this file"):
        seccomp.load(tmp_path / "seccomp.json")

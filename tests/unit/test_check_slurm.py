"""What the look at Slurm makes of the machine, of slurm.conf and of what sinfo says."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _load() -> Any:
    path = ROOT / "roles" / "slurm" / "library" / "check_slurm.py"
    spec = importlib.util.spec_from_file_location("check_slurm", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = _load()


def program(folder: Path, name: str, text: str = "exit 0") -> None:
    """Make a command."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    file.chmod(0o755)


def commands(folder: Path, sinfo: str) -> str:
    """Make the commands of a Slurm, with what sinfo does."""
    for name in ("sbatch", "scancel", "squeue"):
        program(folder, name)
    program(folder, "sinfo", sinfo)
    return str(folder)


@pytest.fixture(autouse=True)
def nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the module look at an empty machine instead of this one."""
    monkeypatch.setattr(check, "CONF", tmp_path / "slurm.conf")
    monkeypatch.setattr(check, "OTHER_CONFS", (tmp_path / "old.conf",))
    monkeypatch.setattr(check, "GUARD", tmp_path / "guard.service")
    monkeypatch.setattr(check, "PLACES", (str(tmp_path / "usr"), str(tmp_path / "local"), str(tmp_path / "opt")))


# --- what jobs may take


@pytest.mark.parametrize(
    ("size", "mebibytes"), [("4G", 4096), ("512M", 512), ("1T", 2**20), ("2048K", 2), ("1073741824", 1024)]
)
def test_sizes_are_read_as_mebibytes(size: str, mebibytes: int) -> None:
    assert check.mebibytes(size) == mebibytes


@pytest.mark.parametrize(
    ("cpus", "memory", "machine", "share"),
    [
        (0, "", (16, 64000), (8, 25600)),
        (0, "", (1, 4000), (1, 1600)),
        (0, "", (3, 10), (1, 4)),
        (12, "32G", (16, 64000), (12, 32768)),
    ],
)
def test_jobs_may_take_half_of_the_cores_and_forty_percent_of_the_memory(
    cpus: int, memory: str, machine: tuple[int, int], share: tuple[int, int]
) -> None:
    assert check.share(cpus, memory, *machine) == share


@pytest.mark.parametrize(
    ("wanted", "worker", "about"),
    [
        ((8, 25600), (1, 2048), []),
        ((16, 64000), (16, 64000), []),
        ((17, 25600), (1, 2048), ["slurm_cpus: 17 are more than this machine has, 16"]),
        ((8, 64001), (1, 2048), ["slurm_memory: 64001 MiB are more than this machine has, 64000"]),
        ((8, 25600), (9, 2048), ["slurm_worker_cores: a worker of 9 would wait for ever, as jobs have 8 here"]),
        ((1, 1600), (1, 2048), ["slurm_worker_memory: a worker of 2048 MiB would wait for ever, as jobs have 1600"]),
    ],
)
def test_a_share_that_cannot_be_is_refused(wanted: tuple[int, int], worker: tuple[int, int], about: list[str]) -> None:
    findings = check.share_findings(wanted, (16, 64000), worker)
    assert len(findings) == len(about)
    for finding, beginning in zip(findings, about, strict=True):
        assert finding.startswith(beginning)


# --- whose Slurm it is


def test_a_slurm_of_labsteads_own_is_no_finding() -> None:
    check.CONF.write_text("# Written by labstead\nClusterName=labstead\n", encoding="utf-8")
    assert check.is_ours(check.CONF)
    assert check.other_findings() == []


def test_without_slurm_there_is_no_finding() -> None:
    assert not check.is_ours(check.CONF)
    assert check.other_findings() == []


def test_a_slurm_of_somebody_elses_is_not_set_up_again() -> None:
    check.CONF.write_text("ClusterName=institute\n# Written by labstead\n", encoding="utf-8")
    (finding,) = check.other_findings()
    assert finding == (
        f"slurm: {check.CONF} is not labstead's; to use that Slurm, set slurm_mode: existing; else remove it"
    )


def test_a_slurm_that_was_installed_otherwise_is_found(tmp_path: Path) -> None:
    program(tmp_path / "opt", "sinfo")
    (finding,) = check.other_findings()
    assert finding.startswith(f"slurm: {tmp_path}/opt/sinfo is there;")


# --- the site's Slurm


def test_the_commands_are_found_where_they_usually_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "login_shell", lambda: ("", ""))
    assert check.find("", "") == ("", "")
    program(tmp_path / "opt", "sinfo")
    assert check.find("", "") == (str(tmp_path / "opt"), "")
    assert check.find("/told/bin", "/told/slurm.conf") == ("/told/bin", "/told/slurm.conf")


def test_the_commands_are_found_by_the_login_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "site", "sinfo")
    monkeypatch.setattr(check, "login_shell", lambda: (str(tmp_path / "site"), "/site/slurm.conf"))
    assert check.find("", "") == (str(tmp_path / "site"), "/site/slurm.conf")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("welcome to the machine\n\n/site/bin/sinfo\n/site/slurm.conf\n", ("/site/bin", "/site/slurm.conf")),
        ("\n/usr/bin/sinfo\n\n", ("/usr/bin", "")),
        ("\n\n\n", ("", "")),
        ("", ("", "")),
        ("\nalias sinfo='sinfo -a'\n\n", ("", "")),
    ],
)
def test_what_a_login_shell_prints_beside_is_left_out(
    said: str, found: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "run", lambda *_: (0, said, ""))
    assert check.login_shell() == found


@pytest.mark.parametrize(
    ("text", "wanted", "findings"),
    [
        ("short*\nlong\n", "", []),
        ("short*\nlong\n", "long", []),
        ("short*\nlong\n", "short", []),
        ("short\nlong\n", "", ["slurm_partition: this Slurm has no default partition; name one of short, long"]),
        ("short*\nlong\n", "gpu", ["slurm_partition: there is no partition gpu; choose one of short, long"]),
        ("", "gpu", ["slurm_partition: there is no partition gpu; choose one of none"]),
    ],
)
def test_a_partition_has_to_be_there(text: str, wanted: str, findings: list[str]) -> None:
    assert check.partition_findings(text, wanted) == findings


def test_a_slurm_that_works_is_no_finding(tmp_path: Path) -> None:
    assert check.existing_findings(commands(tmp_path / "usr", "echo 'short*'"), "", "short") == []


def test_sinfo_is_told_the_configuration(tmp_path: Path) -> None:
    conf = tmp_path / "site.conf"
    folder = commands(tmp_path / "usr", f'[ "$SLURM_CONF" = {conf} ] && echo "short*"')
    assert check.existing_findings(folder, str(conf), "") == [
        f"slurm_conf: {conf} is not a file on this machine; mend it"
    ]
    conf.touch()
    assert check.existing_findings(folder, str(conf), "") == []


def test_a_slurm_that_fails_is_told_with_its_own_words(tmp_path: Path) -> None:
    folder = commands(tmp_path / "usr", "echo first >&2; echo 'sinfo: error: Munge encode failed' >&2; exit 1")
    (finding,) = check.existing_findings(folder, "", "")
    assert (
        finding == f"slurm: {folder}/sinfo fails here: sinfo: error: Munge encode failed; make it work for root first"
    )


def test_commands_that_are_missing_are_named(tmp_path: Path) -> None:
    (finding,) = check.existing_findings("", "", "")
    assert finding.startswith("slurm: no sinfo in ")
    program(tmp_path / "usr", "sinfo")
    (finding,) = check.existing_findings(str(tmp_path / "usr"), "", "")
    assert finding.startswith(f"slurm: no sbatch, scancel, squeue in {tmp_path}/usr;")


def test_ones_own_slurm_is_not_the_sites() -> None:
    check.CONF.write_text("# Written by labstead\n", encoding="utf-8")
    (finding,) = check.existing_findings("/usr/bin", "", "")
    assert finding.startswith(f"slurm: {check.CONF} is labstead's own;")


def test_the_sites_slurm_does_not_get_the_limits_of_ones_own(tmp_path: Path) -> None:
    """Its slurmd would run in labstead's sandbox, and its ports be shut."""
    folder = commands(tmp_path / "usr", "echo 'short*'")
    check.CONF.write_text("ClusterName=institute\n", encoding="utf-8")
    check.GUARD.touch()
    (finding,) = check.existing_findings(folder, "", "")
    assert finding.startswith("slurm: this machine has labstead's own; set slurm_mode: none and run site.yml before")


# --- what runs jobs in images


def test_people_who_cannot_make_user_namespaces_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def run(words: list[str], _environment: dict[str, str], user: int = 0) -> tuple[int, str, str]:
        asked.append((words[0], user))
        return 1, "", "unshare: unshare failed: Operation not permitted\n"

    monkeypatch.setattr(check, "run", run)
    (finding,) = check.runtime_findings("charliecloud")
    assert "user namespaces (unshare: unshare failed: Operation not permitted)" in finding
    assert asked == [("unshare", 65534)]


def test_room_is_needed_for_the_first_images_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": int(3e9)})
    monkeypatch.setattr(check.shutil, "disk_usage", lambda _: usage)
    root = tmp_path / "new" / "compute"
    (finding,) = check.disk_findings(str(root))
    assert finding.startswith(f"disk: 3.0 GB free below {tmp_path}, 4 GB are needed for the images of jobs;")
    (root / "images").mkdir(parents=True)
    assert check.disk_findings(str(root))
    (root / "images" / "0123456789ab.json").touch()
    assert check.disk_findings(str(root)) == []

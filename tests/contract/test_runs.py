"""What tasks of site.yml do, shown with the tasks themselves and this machine in place of a host."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def _ansible(*words: str | Path) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "--inventory", "localhost,", *words],
        cwd=ROOT / "ansible",
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _play(folder: Path, tasks: str, begin: str, **variables: Any) -> str:
    """Play those tasks of a file whose names begin so."""
    found = yaml.safe_load((ROOT / "roles" / tasks).read_text(encoding="utf-8"))
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": variables,
        "tasks": [task for task in found if task["name"].startswith(begin)],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
    return _ansible("--connection", "local", folder / "play.yml")


@pytest.mark.parametrize("complaint", ["", "labstead: /home/anna: a plain folder on btrfs, which can have no limit\n"])
def test_a_limit_that_does_not_hold_is_shown(tmp_path: Path, complaint: str) -> None:
    command = tmp_path / "labstead"
    command.write_text(f"#!/bin/sh\ncat >/dev/null\nprintf '%s' '{complaint}' >&2\n", encoding="utf-8")
    command.chmod(0o755)
    text = _play(
        tmp_path,
        "hub/tasks/main.yml",
        "People |",
        __labstead_command=str(command),
        __labstead_installed_now=True,
        __accounts_people={},
    )
    assert ("a plain folder on btrfs" in text) is bool(complaint)


def test_a_file_beside_a_new_disk_is_left_alone(tmp_path: Path) -> None:
    kinds = yaml.safe_load((ROOT / "roles/storage/vars/main.yml").read_text(encoding="utf-8"))["__storage_kinds"]
    beside = tmp_path / "homes.img.new"
    beside.write_text("somebody's", encoding="utf-8")
    # What a run that was killed left is made anew.
    (tmp_path / ".labstead-homes.img.new").write_bytes(b"half of a disk")
    disk = {"file": f"{tmp_path}/homes.img", "size": "8M", "filesystem": "ext4", "state": "empty"}
    _play(tmp_path, "storage/tasks/disk.yml", "Disk | Make the file,", __storage_disk=disk, __storage_kinds=kinds)
    assert beside.read_text(encoding="utf-8") == "somebody's"
    made = tmp_path / "homes.img"
    assert made.stat().st_size == 8 * 2**20
    assert made.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["homes.img", "homes.img.new", "play.yml"]


def test_a_run_for_new_sessions_ends_with_a_hub_that_starts_them() -> None:
    """The gate lets through the new image alone, and the hub asks for the one that it was started with."""
    told = _ansible("provision.yml", "--list-tasks", "--tags", "sessions")
    names = [line.split("TAGS:")[0].strip() for line in told.splitlines()]
    order = [
        "sessions : Settings | Write sessions.yml",
        "hub : Services | Find out whether the hub runs with older files",
    ]
    assert [name for name in names if name in order] == order


def _task(tasks: str, name: str) -> dict[str, Any]:
    found = yaml.safe_load((ROOT / "roles" / tasks).read_text(encoding="utf-8"))
    (task,) = (task for task in found if task["name"] == name)
    assert isinstance(task, dict)
    return task


RESULTS: dict[str, tuple[dict[str, Any], bool]] = {
    "done": ({"failed": False}, False),
    "lock": ({"msg": "Could not get lock /x", "cmd": "/usr/bin/apt-get install python3-apt -y"}, True),
    "lists": ({"msg": "Could not get lock /x", "cmd": "/usr/bin/apt-get update"}, True),
    "net": ({"msg": "Temporary failure resolving x", "cmd": "/usr/bin/apt-get update"}, False),
    # These have waited for a quarter of an hour.
    "cache": ({"msg": "Failed to lock apt for exclusive operation: Failed to lock directory /x"}, False),
    "dpkg": ({"msg": "'/usr/bin/apt-get install acl' failed: E: Unable to acquire the dpkg frontend lock"}, False),
}
"""How the installation may end, and whether it is tried again; `cmd` is of what the module installs for itself."""


def test_apt_is_tried_again_only_where_it_has_not_waited(tmp_path: Path) -> None:
    until = _task("site/tasks/main.yml", "Packages | Install base packages")["until"]
    shown = [
        {
            "ansible.builtin.debug": {"msg": f"{name} is the end"},
            "vars": {"__site_packages": {"failed": True, "changed": False, **result}},
            "when": until,
        }
        for name, (result, _) in RESULTS.items()
    ]
    play = [{"hosts": "localhost", "gather_facts": False, "tasks": shown}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play), encoding="utf-8")
    text = _ansible("--connection", "local", tmp_path / "play.yml")
    tried_again = {name for name in RESULTS if f"{name} is the end" not in text}
    assert tried_again == {name for name, (_, is_tried_again) in RESULTS.items() if is_tried_again}


def test_a_machine_boots_without_its_disks(tmp_path: Path) -> None:
    """Shown by what the tasks would hand to the module; nothing is mounted here."""
    variables = yaml.safe_load((ROOT / "roles/storage/vars/main.yml").read_text(encoding="utf-8"))
    mounts = [
        _task("storage/tasks/disk.yml", f"Disk | {name}")["ansible.posix.mount"]
        for name in ("Mount it, now and at boot", "Mount them where they belong")
    ]
    disk = {"device": "/dev/sdb", "filesystem": "xfs", "point": "/srv/labstead/sdb"}
    told = [
        {
            "ansible.builtin.copy": {
                "dest": str(tmp_path / str(number)),
                "content": " ".join(mount[key].strip() for key in ("state", "src", "path", "fstype", "opts")),
            },
            "vars": {"__storage_disk": disk},
        }
        for number, mount in enumerate(mounts)
    ]
    known = {name: variables[name] for name in ("__storage_kinds", "__storage_boot")}
    known |= {"__storage_uuid": {"stdout": "7"}, "item": {"path": "/home", "folder": "/srv/labstead/sdb/home"}}
    play = [{"hosts": "localhost", "gather_facts": False, "vars": known, "tasks": told}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play), encoding="utf-8")
    _ansible("--connection", "local", tmp_path / "play.yml")
    boot = "nofail,x-systemd.before=local-fs.target"
    assert [(tmp_path / str(number)).read_text(encoding="utf-8") for number in range(2)] == [
        f"mounted UUID=7 /srv/labstead/sdb xfs uquota,pquota,nodev,nosuid,{boot}",
        f"mounted /srv/labstead/sdb/home /home none bind,{boot}",
    ]

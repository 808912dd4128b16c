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

"""Accounts and groups that stand in for the machine's; the real ones are made on a host."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labstead import identity
from labstead.accounts import groups, homes, machine, session_files


class Unix:
    """Users and groups, as NSS and the account tools show them."""

    def __init__(self, home_root: Path) -> None:
        self.home_root = home_root
        self.users: dict[str, SimpleNamespace] = {}
        self.groups: dict[str, SimpleNamespace] = {}
        self.shadow: dict[str, str] = {}
        self.owners: dict[int, tuple[int, int]] = {}
        self.running: dict[int, tuple[int, ...]] = {}
        self.ran: list[list[str]] = []
        self.die_before: str | None = None

    # --- what tests say is there

    def add_user(self, name: str, uid: int, home: Path | None = None, gid: int | None = None) -> None:
        self.users[name] = SimpleNamespace(
            pw_name=name,
            pw_uid=uid,
            pw_gid=uid if gid is None else gid,
            pw_dir=str(home or self.home_root / name),
            pw_shell="/bin/bash",
            pw_gecos="",
        )
        self.shadow[name] = "*:20000:0:99999:7:::"

    def add_group(self, name: str, gid: int, *members: str) -> None:
        self.groups[name] = SimpleNamespace(gr_name=name, gr_gid=gid, gr_mem=list(members))

    # --- NSS

    def getpwnam(self, name: str) -> Any:
        return self.users[name]

    def getgrnam(self, name: str) -> Any:
        return self.groups[name]

    def getgrgid(self, gid: int) -> Any:
        for group in self.groups.values():
            if group.gr_gid == gid:
                return group
        raise KeyError(gid)

    def getgrouplist(self, name: str, gid: int) -> list[int]:
        return [gid, *(group.gr_gid for group in self.groups.values() if name in group.gr_mem)]

    def entries(self, path: Path) -> list[list[str]]:
        if path.name == "passwd":
            users = self.users.values()
            return [[u.pw_name, "x", str(u.pw_uid), str(u.pw_gid), u.pw_gecos, u.pw_dir, u.pw_shell] for u in users]
        return [[g.gr_name, "x", str(g.gr_gid), ",".join(g.gr_mem)] for g in self.groups.values()]

    # --- tools

    def run(self, command: list[str]) -> None:
        if command[0] == self.die_before:
            raise KeyboardInterrupt
        self.ran.append(list(command))
        getattr(self, "_" + command[0])(command[-1], command)

    def _groupadd(self, name: str, command: list[str]) -> None:
        self.add_group(name, int(command[2]))

    def _useradd(self, name: str, command: list[str]) -> None:
        self.add_user(name, int(command[2]))
        if "--comment" in command:
            self.users[name].pw_gecos = command[command.index("--comment") + 1]

    def _usermod(self, name: str, command: list[str]) -> None:
        if command[1] == "--comment":
            self.users[name].pw_gecos = command[2]
            return
        if command[1] == "--append":
            self.groups[command[3]].gr_mem.append(name)
            return
        fields = self.shadow[name].split(":")
        self.shadow[name] = ":".join([*fields[:6], command[2], *fields[7:]])

    def _gpasswd(self, name: str, command: list[str]) -> None:
        self.groups[name].gr_mem = command[2].split(",") if command[2] else []

    def _userdel(self, name: str, _command: list[str]) -> None:
        del self.users[name], self.shadow[name]
        del self.groups[name]
        for group in self.groups.values():
            group.gr_mem = [member for member in group.gr_mem if member != name]

    def _groupdel(self, name: str, _command: list[str]) -> None:
        del self.groups[name]

    def getent(self, command: list[str], **_kwargs: Any) -> Any:
        return SimpleNamespace(returncode=0, stdout=f"{command[-1]}:{self.shadow[command[-1]]}\n")

    # --- files: those of a test belong to who runs it

    def chown(self, path: Path, uid: int, gid: int, **_kwargs: Any) -> None:
        self.owners[os.lstat(path).st_ino] = (uid, gid)

    def stat(self, found: os.stat_result) -> Any:
        uid, gid = self.owners.get(found.st_ino, (found.st_uid, found.st_gid))
        return SimpleNamespace(
            st_uid=uid, st_gid=gid, st_mode=found.st_mode, st_size=found.st_size, st_mtime=found.st_mtime
        )

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the machine's place."""
        monkeypatch.setattr(machine.pwd, "getpwnam", self.getpwnam)
        monkeypatch.setattr(machine.grp, "getgrnam", self.getgrnam)
        monkeypatch.setattr(machine.grp, "getgrgid", self.getgrgid)
        monkeypatch.setattr(session_files, "entries", self.entries)
        monkeypatch.setattr(machine.os, "getgrouplist", self.getgrouplist)
        monkeypatch.setattr(machine, "run", self.run)
        monkeypatch.setattr(machine, "number_taken", lambda _: False)
        monkeypatch.setattr(machine, "processes_of", lambda uid: self.running.get(uid, ()))
        monkeypatch.setattr(subprocess, "run", self.getent)
        monkeypatch.setattr(homes.os, "chown", self.chown)
        monkeypatch.setattr(groups.os, "setxattr", lambda *_args: None)
        real = Path.stat
        monkeypatch.setattr(Path, "stat", lambda path, **kwargs: self.stat(real(path, **kwargs)))
        assert identity.pwd is session_files.pwd is machine.pwd

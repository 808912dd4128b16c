"""Limits of homes, group folders and scratch, on btrfs: they hold against a session, and follow what is said of them.

The rule: what a limit is, is asked of `btrfs qgroup show`; whether it holds, of a session that writes until it cannot.
"""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import probe
from support.commands import labstead
from support.kernel import Kernel
from support.lab import Lab
from support.machine import wait_for
from support.person import Person
from support.provision import SETTINGS

M = 2**20
SITE = {"home": 2**30, "group": 2 * 2**30, "scratch": 2 * 2**30}
"""What the settings of the test hosts say of all: 1G, 2G, 2G."""
ROOTS = {"home": "/home", "group": "/groups", "scratch": "/scratch"}


def qgroups(lab: Lab) -> dict[str, str]:
    """Give the limits as btrfs has them, by the number of a subvolume; `none` is none."""
    rows = [line.split() for line in lab.machine.out("btrfs", "qgroup", "show", "--raw", "-r", "/home").splitlines()]
    return {row[0].removeprefix("0/"): row[3] for row in rows if row and row[0].startswith("0/")}


def subvolume(lab: Lab, path: str) -> str:
    """Give the number of the subvolume that a folder is in."""
    return lab.machine.out("btrfs", "inspect-internal", "rootid", path)


def limit(lab: Lab, path: str) -> int | None:
    """Give the limit of a folder in bytes as btrfs has it."""
    found = qgroups(lab)[subvolume(lab, path)]
    return None if found == "none" else int(found)


def shown(lab: Lab, *words: str, user: str = "root") -> list[dict[str, Any]]:
    """Give what `labstead quota show` tells somebody."""
    command = ("runuser", "-u", user, "--", "labstead", "quota", "show", *words, "--json")
    found: list[dict[str, Any]] = json.loads(lab.machine.out(*command))
    return found


def home_of(lab: Lab, name: str) -> dict[str, Any]:
    (space,) = (space for space in shown(lab, name) if space["kind"] == "home")
    return space


@pytest.fixture
def somebody(lab: Lab) -> Iterator[str]:
    """Give the name of somebody with an account and without a log-in."""
    name = f"quota-{secrets.token_hex(3)}"
    labstead(lab, "user", "add", name)
    yield name
    lab.machine.run("labstead", "user", "remove", name, "--delete-files", "--yes", check=False)


@pytest.fixture
def group(lab: Lab) -> Iterator[str]:
    name = f"reef-{secrets.token_hex(3)}"
    labstead(lab, "group", "add", name)
    yield name
    lab.machine.run("labstead", "group", "remove", name, "--delete-files", "--yes", check=False)


@pytest.fixture(scope="module")
def writer(lab: Lab, admin: Person) -> Iterator[tuple[Person, Kernel]]:
    """Give somebody who may write in a session whatever fits."""
    person = lab.join("wilma", admin)
    person.start()
    kernel = person.kernel()
    kernel.run(Path(probe.__file__).read_text(encoding="utf-8"))
    yield person, kernel
    person.stop()


# --- they are there from the start


def test_home_scratch_and_folder_are_subvolumes_with_the_sites_limits(lab: Lab, somebody: str, group: str) -> None:
    for kind, name in (("home", somebody), ("group", group), ("scratch", somebody)):
        assert limit(lab, f"{ROOTS[kind]}/{name}") == SITE[kind], kind
    numbers = {subvolume(lab, f"{ROOTS[kind]}/{name}") for kind, name in (("home", somebody), ("scratch", somebody))}
    assert len(numbers) == 2
    assert lab.machine.out("stat", "--format=%U:%G %a", f"/scratch/{somebody}") == f"{somebody}:{somebody} 700"
    told = {space["kind"]: space for space in shown(lab, somebody)}
    assert told.keys() == {"home", "scratch"}
    assert (told["home"]["limit_bytes"], told["home"]["said_by"]) == (SITE["home"], "site")
    assert told["home"]["file_system"] == "btrfs"


def test_the_settings_are_those_that_the_tests_know() -> None:
    assert [SETTINGS[f"storage_{kind}_quota"] for kind in SITE] == ["1G", "2G", "2G"]


# --- they hold


def _fill(kernel: Kernel, path: str) -> tuple[str, int]:
    why, size = kernel.value(f"fill_bytes({path!r}, 2**29)", seconds=180)
    return why, size


def test_a_home_takes_what_fits_and_a_larger_limit_takes_effect_at_once(
    lab: Lab, writer: tuple[Person, Kernel]
) -> None:
    person, kernel = writer
    path = f"/home/{person.name}/full"
    session = lab.container_of(person.name)
    labstead(lab, "quota", "set", person.name, "60M")
    why, size = _fill(kernel, path)
    assert why == "EDQUOT"
    assert 0 < size <= 60 * M
    # Nothing new fits, and what is there can be read and deleted.
    assert kernel.sh("head -c 1M /dev/urandom >~/more", check=False).returncode != 0
    labstead(lab, "quota", "set", person.name, "90M")
    why, larger = _fill(kernel, path)
    assert why == "EDQUOT"
    assert 60 * M - 2 * M < larger <= 90 * M
    assert larger > size + 20 * M
    assert lab.container_of(person.name) == session, "it is another session"
    kernel.sh("rm -f ~/full ~/more")
    labstead(lab, "quota", "set", person.name, "default")
    assert limit(lab, f"/home/{person.name}") == SITE["home"]


def test_a_groups_folder_and_scratch_take_what_fits(lab: Lab, writer: tuple[Person, Kernel], group: str) -> None:
    person, _ = writer
    labstead(lab, "group", "members", group, "--add", person.name)
    labstead(lab, "quota", "set", group, "40M", "--group")
    labstead(lab, "quota", "set", person.name, "50M", "--scratch")
    person.stop()
    person.start()
    kernel = person.kernel()
    kernel.run(Path(probe.__file__).read_text(encoding="utf-8"))
    for path, most in ((f"/groups/{group}/full", 40 * M), (f"/scratch/{person.name}/full", 50 * M)):
        why, size = _fill(kernel, path)
        assert why == "EDQUOT", path
        assert most // 2 < size <= most, path
    assert kernel.sh("head -c 1M /dev/urandom >~/still-room && rm ~/still-room").returncode == 0
    labstead(lab, "quota", "set", person.name, "default", "--scratch")


# --- they follow


def test_moving_a_person_between_groups_changes_the_limit(lab: Lab, somebody: str, group: str) -> None:
    other = f"{group}-b"
    labstead(lab, "group", "add", other)
    home = f"/home/{somebody}"
    try:
        labstead(lab, "quota", "set", group, "3G", "--members")
        labstead(lab, "quota", "set", other, "5G", "--members")
        assert limit(lab, home) == SITE["home"]
        for words, wanted in (
            ((group, "--add"), 3),
            ((other, "--add"), 5),
            ((other, "--remove"), 3),
            ((group, "--remove"), 1),
        ):
            labstead(lab, "group", "members", *words, somebody)
            assert limit(lab, home) == wanted * 2**30, words
        labstead(lab, "group", "members", group, "--add", somebody)
        assert home_of(lab, somebody)["said_by"] == "group"
        labstead(lab, "quota", "set", somebody, "none")
        assert limit(lab, home) is None
        labstead(lab, "quota", "set", somebody, "default")
    finally:
        labstead(lab, "group", "remove", other, "--delete-files", "--yes")
    assert limit(lab, home) == 3 * 2**30


def test_what_the_inventory_says_wins_at_each_run(lab: Lab) -> None:
    name = f"quota-{secrets.token_hex(3)}"
    people = json.dumps({"users": [{"name": name, "quota": "3G", "scratch_quota": "none"}]})
    try:
        done = labstead(lab, "apply", "--file", "-", stdin=people)
        assert done.stdout.splitlines() == [
            f"user {name}: made",
            f"user {name}: home: at most 3G",
            f"user {name}: scratch: no limit of bytes",
        ]
        assert (limit(lab, f"/home/{name}"), limit(lab, f"/scratch/{name}")) == (3 * 2**30, None)
        assert labstead(lab, "apply", "--file", "-", stdin=people).stdout == ""
        # Somebody's hand on the disk itself.
        lab.machine.run("btrfs", "qgroup", "limit", "5G", f"/home/{name}")
        assert labstead(lab, "apply", "--file", "-", stdin=people).stdout == f"home of {name}: 3G\n"
        assert limit(lab, f"/home/{name}") == 3 * 2**30
    finally:
        labstead(lab, "user", "remove", name, "--delete-files", "--yes")


def test_who_leaves_leaves_nothing_behind(lab: Lab) -> None:
    """One whose home is archived, one whose home is deleted, and a group's folder."""
    names = [f"quota-{secrets.token_hex(3)}" for _ in range(2)]
    group = f"reef-{secrets.token_hex(3)}"
    for name in names:
        labstead(lab, "user", "add", name)
    labstead(lab, "group", "add", group, "--members", names[0])
    paths = [*(f"{root}/{name}" for name in names for root in ("/home", "/scratch")), f"/groups/{group}"]
    lab.machine.sh('for folder; do head -c 2M /dev/urandom >"$folder/data"; done', *paths)
    numbers = {subvolume(lab, path) for path in paths}
    assert len(numbers) == 5
    assert numbers <= qgroups(lab).keys()
    labstead(lab, "user", "remove", names[0], "--yes")
    labstead(lab, "user", "remove", names[1], "--delete-files", "--yes")
    labstead(lab, "group", "remove", group, "--yes")
    assert lab.machine.sh("ls -A /home /scratch /groups | grep -F .removed- || true").stdout == ""
    for path in paths:
        assert lab.machine.run("test", "-e", path, check=False).returncode == 1
    # btrfs cleans up by and by (Linux 6.10 and later).

    def is_gone() -> bool:
        lab.machine.run("btrfs", "filesystem", "sync", "/home")
        return not numbers & qgroups(lab).keys()

    wait_for("quota groups of removed subvolumes go", is_gone, 120)
    assert "./data" in lab.machine.sh("tar -tzf /var/lib/labstead/archive/$1-*.tar.gz", names[0]).stdout.split()


# --- what was there before, and what goes wrong


def test_a_plain_folder_is_told_of_and_is_in_nobodys_way(lab: Lab) -> None:
    name = f"plain-{secrets.token_hex(3)}"
    lab.machine.run("useradd", "--create-home", "--shell", "/bin/bash", "--uid", "31234", "--user-group", name)
    try:
        labstead(lab, "user", "link", name)
        told = labstead(lab, "apply").stderr
        (line,) = (line for line in told.splitlines() if name in line)
        assert "btrfs subvolume create" in line
        space = home_of(lab, name)
        assert (space["used_bytes"], space["limit_bytes"]) == (None, None)
        reply = json.loads(
            lab.machine.python(
                "import socket, sys; c = socket.socket(socket.AF_UNIX); c.connect('/run/labstead/accounts.sock');"
                "c.sendall(sys.argv[1].encode() + b'\\n'); print(c.makefile().readline())",
                json.dumps({"op": "open-session", "name": name}),
                user="labstead",
            ).stdout
        )
        assert reply["error"] is None
        # As the line says; then it has its limit.
        lab.machine.sh(
            'mv "/home/$1" "/home/.old-$1"; btrfs subvolume create "/home/$1" >/dev/null;'
            'cp -a --reflink=auto "/home/.old-$1/." "/home/$1/"; rm -r "/home/.old-$1"',
            name,
        )
        assert labstead(lab, "apply").stdout == f"home of {name}: 1G\n"
        assert limit(lab, f"/home/{name}") == SITE["home"]
    finally:
        labstead(lab, "user", "remove", name, "--yes")
        lab.machine.run("userdel", "--remove", name)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("5 apples",), "'5 apples' is not a size"),
        (("1G", "--files", "some"), "'some' is not a number of files"),
        (("--files", "500k"), "does not limit the number of files"),
        ((), "give a size"),
    ],
)
def test_a_limit_that_is_none_changes_nothing(lab: Lab, somebody: str, words: tuple[str, ...], told: str) -> None:
    before = qgroups(lab)
    said = labstead(lab, "quota", "set", somebody, *words, code=2).stderr
    assert told in said
    assert len(said.splitlines()) == 1
    assert qgroups(lab) == before


def test_what_is_in_the_place_of_scratch_is_left_alone(lab: Lab, somebody: str) -> None:
    lab.machine.sh('rmdir "/scratch/$1"; ln -s /etc "/scratch/$1"', somebody)
    try:
        found = lab.machine.out("stat", "--format=%U %a", "/etc")
        labstead(lab, "user", "lock", somebody)
        labstead(lab, "user", "unlock", somebody)
        assert lab.machine.out("stat", "--format=%F", f"/scratch/{somebody}") == "symbolic link"
        assert lab.machine.out("stat", "--format=%U %a", "/etc") == found
        assert [space["kind"] for space in shown(lab, somebody)] == ["home"]
    finally:
        lab.machine.run("rm", f"/scratch/{somebody}")


# --- who sees what


def test_people_see_what_they_have_and_nobody_elses(lab: Lab, participant: Person, somebody: str, group: str) -> None:
    labstead(lab, "group", "members", group, "--add", participant.name)
    own, roots = shown(lab, user=participant.name), shown(lab, participant.name)
    for space in (*own, *roots):
        del space["used_bytes"]  # a session of theirs may write between the two
    assert own == roots
    assert {("home", participant.name), ("group", group)} <= {(space["kind"], space["name"]) for space in own}
    assert somebody not in {space["name"] for space in own}
    refused = lab.machine.run(
        "runuser", "-u", participant.name, "--", "labstead", "quota", "show", somebody, check=False
    )
    assert refused.returncode == 2
    assert "may not see" in refused.stderr
    refused = lab.machine.run(
        *("runuser", "-u", participant.name, "--", "labstead", "quota", "set", participant.name, "none"), check=False
    )
    assert refused.returncode == 2


USAGE = "/var/lib/labstead/usage.sqlite"
READ = """
import json, sqlite3, sys
with sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True) as db:
    print(json.dumps(db.execute("SELECT kind, bytes, limit_bytes FROM sample WHERE name = ?", sys.argv[2:]).fetchall()))
"""


def test_use_is_noted_each_day_where_the_hub_can_read_it(lab: Lab, somebody: str) -> None:
    lab.machine.sh('head -c 3M /dev/urandom >"/home/$1/data"; sync --file-system /home', somebody)
    lab.machine.run("systemctl", "start", "labstead-tidy.service", timeout=600, check=False)
    rows = json.loads(lab.machine.python(READ, USAGE, somebody, user="labstead").stdout)
    (home,) = (row for row in rows if row[0] == "home")
    assert 3 * M <= home[1] < 5 * M
    assert home[2] == SITE["home"]
    refused = lab.machine.python(READ, USAGE, somebody, user="nobody", check=False)
    assert "sqlite3.OperationalError" in refused.stderr


# --- the service that sets them


def test_the_service_may_set_limits_and_not_mount(lab: Lab) -> None:
    show = ("systemctl", "show", "--value", "labstead-accounts.service")
    assert "cap_sys_admin" in lab.machine.out(*show, "--property=CapabilityBoundingSet").split()
    allowed = set(lab.machine.out(*show, "--property=SystemCallFilter").split())
    assert "quotactl_fd" in allowed
    forbidden = "mount umount2 move_mount mount_setattr fsopen fsmount open_tree pivot_root bpf init_module swapon"
    assert not allowed & {*forbidden.split(), "kexec_load", "open_by_handle_at", "quotactl"}
    assert lab.machine.out(*show, "--property=PrivateDevices") == "yes"
    assert lab.machine.out(*show, "--property=RestrictNamespaces") == "yes"

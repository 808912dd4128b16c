"""The parts of throwaway hosts that can be wrong without a host: names, addresses, sources, records.

The rule: expected values are written by hand, from the formats' own documentation.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "hosts"))

from _host import apt, container, network, plain, store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep records in a directory of this test alone."""
    monkeypatch.setattr(store, "DIR", tmp_path)
    return tmp_path


# Names


@pytest.mark.parametrize("name", ["demo", "a", "t1", "my-host", "elevenchars", "0a"])
def test_good_names_pass(name: str) -> None:
    assert plain.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Demo",
        "my_host",
        "-a",
        "a-",
        "a.b",
        "a/b",
        "..",
        "twelve-chars",
        "42",
        "a b",
        "a\n",
        "ä",
    ],
)
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(plain.BadInput):
        plain.check_name(name)


def test_the_longest_name_fits_into_an_interface_name() -> None:
    assert len(network.interface("elevenchars")) == 15


def test_unknown_suites_are_refused_with_the_known_ones() -> None:
    assert plain.check_suite("bookworm") == "bookworm"
    with pytest.raises(plain.BadInput, match="trixie, bookworm"):
        plain.check_suite("jammy")


# Addresses


@pytest.mark.parametrize(
    ("slot", "machine", "host"),
    [
        (0, "198.51.100.1", "198.51.100.2"),
        (1, "198.51.100.5", "198.51.100.6"),
        (63, "198.51.100.253", "198.51.100.254"),
    ],
)
def test_each_slot_has_its_own_two_addresses(slot: int, machine: str, host: str) -> None:
    assert (plain.Cable(slot).machine, plain.Cable(slot).host) == (machine, host)


def test_the_lowest_free_address_is_chosen() -> None:
    assert plain.free_cable([], ["192.0.2.2/24", "127.0.0.1/8"]).slot == 0
    assert plain.free_cable([0, 1, 3], []).slot == 2


def test_addresses_that_the_machine_uses_are_left_alone() -> None:
    assert plain.free_cable([], ["198.51.100.1/30", "198.51.100.6/32"]).slot == 2
    assert plain.free_cable([32], ["198.51.100.0/25"]).slot == 33


def test_a_full_network_says_so() -> None:
    with pytest.raises(plain.Failed, match="no free address"):
        plain.free_cable(range(64), [])
    with pytest.raises(plain.Failed, match="no free address"):
        plain.free_cable([], ["198.51.0.0/16"])


# Notes


def test_notes_merge_key_by_key_and_null_removes() -> None:
    old = {"url": "https://a", "admin": {"name": "ada", "password": "x"}}
    new = {"url": None, "admin": {"password": "y"}, "ca": "/c"}
    assert plain.merge_notes(old, new) == {"admin": {"name": "ada", "password": "y"}, "ca": "/c"}
    assert old["url"] == "https://a"


def test_dotted_keys_become_objects() -> None:
    pairs = ["admin.name=ada", "admin.mail=a=b", "empty="]
    assert plain.notes_from_pairs(pairs) == {"admin": {"name": "ada", "mail": "a=b"}, "empty": ""}


@pytest.mark.parametrize("pair", ["url", "=x", "a..b=x", ".a=x"])
def test_what_is_no_note_is_refused(pair: str) -> None:
    with pytest.raises(plain.BadInput):
        plain.notes_from_pairs([pair])


# The machine's apt


def test_one_line_sources_are_read() -> None:
    text = """\
# deb http://old.example/debian bookworm main
deb http://mirror.example/debian/ bookworm main contrib # the house mirror
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] https://mirror.example/debian-security bookworm-security main
"""
    assert list(apt.parse_list(text)) == [
        apt.Source("http://mirror.example/debian", "bookworm", ("main", "contrib")),
        apt.Source("https://mirror.example/debian-security", "bookworm-security", ("main",)),
    ]


def test_deb822_sources_are_read() -> None:
    text = """\
Types: deb deb-src
# a comment in the middle
URIs: http://mirror.example/debian
Suites: trixie
 trixie-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main
Enabled: no

Types: deb-src
URIs: http://source.example/debian
Suites: trixie
Components: main
"""
    assert list(apt.parse_deb822(text)) == [
        apt.Source("http://mirror.example/debian", "trixie", ("main",)),
        apt.Source("http://mirror.example/debian", "trixie-updates", ("main",)),
    ]


def test_third_parties_are_not_taken_for_debian() -> None:
    sources = [
        apt.Source("https://packages.example/tool", "bookworm", ("main",)),
        apt.Source("https://download.example/linux/debian", "bookworm", ("stable",)),
        apt.Source("cdrom://debian", "bookworm", ("main",)),
        apt.Source("http://house.example/mirror", "bookworm-backports", ("main",)),
        apt.Source("http://house.example/mirror", "bookworm", ("main",)),
        apt.Source("http://house.example/mirror", "bookworm-updates", ("main",)),
        apt.Source("http://house.example/security", "bookworm-security", ("main",)),
    ]
    expected = apt.Mirror("http://house.example/mirror", "http://house.example/security")
    assert apt.choose_mirror(sources) == expected


def test_a_mirror_without_updates_is_told_by_its_path() -> None:
    sources = [apt.Source("http://house.example/debian", "stable", ("main",))]
    assert apt.choose_mirror(sources).archive == "http://house.example/debian"


def test_a_machine_without_debian_uses_the_projects_mirror() -> None:
    ubuntu = [apt.Source("http://archive.ubuntu.example/ubuntu", "noble", ("main",))]
    expected = apt.Mirror("http://deb.debian.org/debian", "http://deb.debian.org/debian-security")
    assert apt.choose_mirror(ubuntu) == expected


def test_both_kinds_of_files_are_found_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.example/debian trixie main\n")
    more = tmp_path / "sources.list.d"
    (more / "b.sources").write_text("Types: deb\nURIs: http://b.example/s\nSuites: trixie-security\nComponents: main\n")
    (more / "c.list.disabled").write_text("deb http://c.example/debian trixie-security main\n")
    expected = apt.Mirror("http://a.example/debian", "http://b.example/s")
    assert apt.machine_mirror(tmp_path) == expected


def test_a_host_gets_release_updates_and_security() -> None:
    text = apt.Mirror("http://a.example/debian", "http://b.example/s").sources("bookworm")
    assert "URIs: http://a.example/debian\nSuites: bookworm bookworm-updates\n" in text
    assert "URIs: http://b.example/s\nSuites: bookworm-security\n" in text


def test_only_settings_about_the_mirror_are_passed_on() -> None:
    dump = """\
APT::Architecture "amd64";
Acquire::http::Proxy "http://proxy.example:3142";
Acquire::http::Proxy::local.example "DIRECT";
Acquire::https::Proxy "DIRECT";
Acquire::Check-Valid-Until "false";
Acquire::Languages:: "none";
DPkg::Post-Invoke:: "rm -rf /";
Acquire::http::Proxy "";
"""
    kept = """\
Acquire::http::Proxy "http://proxy.example:3142";
Acquire::http::Proxy::local.example "DIRECT";
Acquire::https::Proxy "DIRECT";
Acquire::Check-Valid-Until "false";
"""
    assert apt.passed_on(dump) == kept
    assert apt.proxy_environment(kept) == {"http_proxy": "http://proxy.example:3142"}


def test_packages_go_round_and_old_versions_go(tmp_path: Path) -> None:
    cache, first, second = (tmp_path / part for part in ("cache", "first", "second"))
    first.mkdir()
    second.mkdir()
    for name in ("tool_1%3a1.9-1_amd64.deb", "tool_1%3a1.10-1_amd64.deb", "data_1_all.deb"):
        (first / name).write_text(name)
    (first / "lock").touch()
    (first / "link_1_all.deb").symlink_to("data_1_all.deb")
    apt.harvest_packages(first, cache)
    apt.harvest_packages(first, cache)
    apt.lend_packages(cache, second)
    apt.lend_packages(cache, second)
    names = sorted(path.name for path in second.iterdir())
    assert names == ["data_1_all.deb", "tool_1%3a1.10-1_amd64.deb"]


# Stale state


def test_a_process_is_told_by_number_and_start() -> None:
    # proc(5): field 1 is the number, 2 the command in brackets, 3 the state, 22 the start.
    head, rest = (
        "4711 (we(i) rd) name)",
        "1 4711 4711 0 -1 4194560 0 0 0 0 1 2 3 4 20 0 1 0 98765 1 2",
    )
    assert store.parse_stat(f"{head} S {rest}") == store.Process(4711, 98765)
    assert store.parse_stat(f"{head} Z {rest}") is None


def test_a_reused_number_is_another_process() -> None:
    own = store.Process.of(os.getpid())
    assert own is not None
    assert own.alive()
    assert not store.Process(own.pid, own.start - 1).alive()


def test_a_killed_process_is_not_alive_even_before_it_is_reaped() -> None:
    child = subprocess.Popen(["sleep", "60"])
    process = store.Process.of(child.pid)
    assert process is not None
    assert process.alive()
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.alive()
    child.wait()
    assert not process.alive()


@pytest.mark.usefixtures("folder")
def test_a_host_whose_keeper_died_is_not_running() -> None:
    own = store.Process.of(os.getpid())
    assert own is not None
    assert not container.running("demo")
    store.Keeper(own, ()).save("demo")
    assert container.running("demo")
    store.Keeper(store.Process(own.pid, own.start + 1), ()).save("demo")
    assert not container.running("demo")


def test_records_survive_and_are_private(folder: Path) -> None:
    host = store.Host("demo", "trixie", 3, ready=True)
    host.save()
    assert store.Host.load("demo") == host
    assert store.names() == ["demo"]
    assert (folder / "hosts/demo/state.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"name": "demo"}', '{"odd": 1}'])
def test_a_damaged_record_counts_as_none(folder: Path, damage: str) -> None:
    (folder / "hosts/demo").mkdir(parents=True)
    (folder / "hosts/demo/state.json").write_text(damage)
    (folder / "hosts/demo/keeper.json").write_text(damage)
    assert store.Host.load("demo") is None
    assert store.Keeper.load("demo") is None
    assert store.names() == ["demo"]


def test_a_lock_is_free_again_when_its_holder_was_killed(folder: Path) -> None:
    path = folder / "locks" / "host-demo"
    path.parent.mkdir()
    take = f"import fcntl, time; f = open({str(path)!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX)"
    code = f"{take}; print(1, flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(plain.Busy), store.lock("host-demo", wait=0):
        pass
    holder.kill()
    holder.wait()
    with store.lock("host-demo", wait=0):
        pass


def test_only_rules_with_exactly_this_name_are_taken_away() -> None:
    listed = """\
-P FORWARD ACCEPT
-A FORWARD -i lab-demo -m comment --comment labstead-demo -j ACCEPT
-A FORWARD -i lab-demo2 -m comment --comment labstead-demo2 -j ACCEPT
-A FORWARD -i eth1 -m comment --comment "see labstead-demo" -j DROP
-A FORWARD -o lab-demo -m comment --comment "labstead-demo" -j ACCEPT
"""
    assert network.rules_of(listed, "labstead-demo") == [
        [
            "FORWARD",
            "-i",
            "lab-demo",
            "-m",
            "comment",
            "--comment",
            "labstead-demo",
            "-j",
            "ACCEPT",
        ],
        [
            "FORWARD",
            "-o",
            "lab-demo",
            "-m",
            "comment",
            "--comment",
            "labstead-demo",
            "-j",
            "ACCEPT",
        ],
    ]


# Control groups

V1_MOUNTS = """\
30 24 0:25 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:26 / /sys/fs/cgroup/systemd rw,nosuid shared:5 - cgroup cgroup rw,xattr,name=systemd
32 30 0:27 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
33 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
34 30 0:29 /jail /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
"""


def test_own_groups_are_found_on_v1_and_hybrid_machines() -> None:
    cgroups = "4:memory:/jail/me\n3:cpu,cpuacct:/\n2:pids:/\n1:name=systemd:/user.slice\n0::/user.slice\n"
    root = Path("/sys/fs/cgroup")
    assert list(container.hierarchies(cgroups, V1_MOUNTS)) == [
        ("v1", root / "memory", root / "memory/me"),
        ("v1", root / "cpu,cpuacct", root / "cpu,cpuacct"),
        ("v1", root / "systemd", root / "systemd/user.slice"),
        ("v2", root / "unified", root / "unified/user.slice"),
    ]


def test_own_groups_are_found_on_v2_machines() -> None:
    mounts = "31 30 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
    root = Path("/sys/fs/cgroup")
    assert list(container.hierarchies("0::/system.slice/x.scope\n", mounts)) == [
        ("v2", root, root / "system.slice/x.scope"),
    ]

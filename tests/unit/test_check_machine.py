"""What the look at the machine makes of what the kernel says."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _load() -> Any:
    path = ROOT / "roles" / "preflight" / "library" / "check_machine.py"
    spec = importlib.util.spec_from_file_location("check_machine", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


machine = _load()

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1F40 0100007F:C001 01 00000000:00000000 00:00000000 00000000   999        0 4712 1 0 20 4 30 10 -1
"""


def test_only_listening_sockets_hold_a_port() -> None:
    assert machine.listeners(TCP) == {8000: 4711}


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/labstead-hub.service\n", "labstead-hub.service"),
        ("4:memory:/\n1:name=systemd:/payload/system.slice/nginx.service\n0::/\n", "nginx.service"),
        ("0::/user.slice/user-0.slice/session-1.scope\n", ""),
        ("0::/\n", ""),
    ],
)
def test_the_service_of_a_process_is_in_its_cgroup(cgroups: str, unit: str) -> None:
    assert machine.unit_of(cgroups) == unit


@pytest.mark.parametrize(
    ("unit", "was_here", "ours"),
    [
        ("labstead-proxy.service", True, True),
        ("nginx.service", True, True),
        ("nginx.service", False, False),
        ("apache2.service", True, False),
        ("", True, False),
    ],
)
def test_a_port_is_ours_only_in_our_services_hands(unit: str, was_here: bool, ours: bool) -> None:
    assert machine.ours(unit, was_here) is ours


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n', []),
        (
            'ID=debian\nVERSION_ID="11"\nPRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\n',
            ["operating system: Debian GNU/Linux 11 (bullseye) is not supported; use Debian 12 or 13"],
        ),
        (
            'ID=rocky\nVERSION_ID="9.4"\nPRETTY_NAME="Rocky Linux 9.4"\n',
            ["operating system: Rocky Linux 9.4 is not supported; use Debian 12 or 13"],
        ),
    ],
)
def test_only_supported_releases_pass(text: str, lines: list[str]) -> None:
    assert machine.os_finding(machine.os_release(text), ["12", "13"]) == lines


def test_too_little_memory_is_refused() -> None:
    assert machine.memory_findings("MemTotal:        3900000 kB\n", 4) == []
    (line,) = machine.memory_findings("MemTotal:        1000000 kB\n", 4)
    assert line == "memory: 1.0 GB, 4 GB are needed; add memory or lower preflight_minimum_memory_gb"


def test_too_little_disk_is_refused_on_a_new_machine_only() -> None:
    enormous = 10**9
    (first, *_) = machine.disk_findings(enormous, fresh=True)
    assert first.startswith("disk: ")
    assert "preflight_minimum_disk_gb" in first
    assert machine.disk_findings(enormous, fresh=False) == []


def test_strange_processors_are_refused() -> None:
    assert machine.architecture_findings("x86_64") == machine.architecture_findings("aarch64") == []
    assert len(machine.architecture_findings("riscv64")) == 1

#!/usr/bin/python
"""Look at the machine and list what stands in the way of a hub.

The rule: it reads and never writes, and it reports every finding at once, each with what to do.
It runs on the target with nothing but Python's standard library.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: check_machine
short_description: List what stands in the way of a hub on this machine
description:
  - Reads /proc, /etc/os-release and free space; changes nothing, so it runs in check mode as well.
author:
  - labstead contributors
options:
  releases:
    description: Debian releases that are supported, by major version.
    type: list
    elements: str
    required: true
  ports:
    description: TCP ports that the hub's services listen on.
    type: list
    elements: int
    required: true
  minimum_disk_gb:
    description: Free space in GB that a first installation needs below /opt and /var/lib.
    type: int
    required: true
  minimum_memory_gb:
    description: Memory in GB.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Machine | Look for what stands in the way
  check_machine:
    releases: ["12", "13"]
    ports: [80, 443]
    minimum_disk_gb: 10
    minimum_memory_gb: 3
"""

RETURN = r"""
findings:
  description: One line for each thing to put right, "what, what is wrong; what to do".
  type: list
  elements: str
  returned: always
machine:
  description: Facts that the roles use.
  type: dict
  returned: always
  contains:
    release:
      description: Major version of Debian.
      type: str
    architecture:
      description: As uname says.
      type: str
    python:
      description: Version of /usr/bin/python3.
      type: str
    fresh:
      description: Whether labstead was never installed here.
      type: bool
    apt_ready:
      description: Whether apt can plan in check mode, which needs python3-apt and package lists.
      type: bool
"""

MARKER = Path("/opt/labstead/current")
CONFIG = Path("/etc/labstead")
LATER_DISK_GB = 1
"""Free space in GB that a further run needs: a new release of the package beside the old one."""


def os_release(text: str) -> dict[str, str]:
    """Read the lines KEY=value of /etc/os-release."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key: value.strip().strip("\"'") for key, value in pairs}


def os_finding(release: dict[str, str], supported: list[str]) -> list[str]:
    """Refuse all but the supported releases of Debian."""
    if release.get("ID") == "debian" and release.get("VERSION_ID", "") in supported:
        return []
    name = release.get("PRETTY_NAME", "unknown")
    return [f"operating system: {name} is not supported; use Debian {' or '.join(supported)}"]


def listeners(table: str) -> dict[int, int]:
    """Map port to socket inode of what listens, from the text of /proc/net/tcp or tcp6."""
    found = {}
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == "0A":
            found[int(fields[1].rsplit(":", 1)[1], 16)] = int(fields[9])
    return found


def unit_of(cgroups: str) -> str:
    """Give the systemd service of a process from the text of its /proc/PID/cgroup, or an empty string."""
    units = re.findall(r"([\w@.\\:-]+\.service)(?=/|$)", cgroups, flags=re.MULTILINE)
    return units[-1] if units else ""


def ours(unit: str, labstead_was_here: bool) -> bool:
    """Tell whether a service that holds a port is one that labstead runs.

    nginx and Slurm count as ours only where /etc/labstead exists: before that they are somebody's own. Another's Slurm
    is found by its slurm.conf.
    """
    theirs = ("nginx.service", "slurmctld.service", "slurmd.service")
    return unit.startswith("labstead-") or (unit in theirs and labstead_was_here)


def owner(inode: int) -> tuple[str, str]:
    """Find the process that holds a socket: what to call it, and its service."""
    wanted = f"socket:[{inode}]"
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(str(entry.readlink()) == wanted for entry in folder.iterdir()):
                process = folder.parent
                name = (process / "comm").read_text(encoding="utf-8").strip()
                return f"{name} (pid {process.name})", unit_of((process / "cgroup").read_text(encoding="utf-8"))
        except OSError:
            continue
    return "another process", ""


def port_findings(ports: list[int]) -> list[str]:
    """Refuse ports that somebody else's process listens on."""
    table: dict[int, int] = {}
    for name in ("tcp", "tcp6"):
        path = Path("/proc/net", name)
        if path.exists():
            table.update(listeners(path.read_text(encoding="utf-8")))
    findings = []
    for port in ports:
        if port in table:
            who, unit = owner(table[port])
            if not ours(unit, CONFIG.exists()):
                named = f"{who} of {unit}" if unit else who
                findings.append(
                    f"port {port}: {named} listens on it, but the hub needs it; stop and disable that service"
                )
    return findings


def existing_parent(path: str) -> Path:
    """Give the nearest folder above that exists."""
    folder = Path(path)
    while not folder.exists():
        folder = folder.parent
    return folder


def disk_findings(minimum_gb: int, fresh: bool) -> list[str]:
    """Refuse too little free space where images and releases go."""
    needed = minimum_gb if fresh else min(minimum_gb, LATER_DISK_GB)
    findings, seen = [], set()
    for path in ("/var/lib/docker", "/opt/labstead"):
        folder = existing_parent(path)
        device = folder.stat().st_dev
        free = shutil.disk_usage(folder).free / 1e9
        if device not in seen and free < needed:
            findings.append(
                f"disk: {free:.1f} GB free below {folder}, {needed} GB are needed; make room"
                + (" or lower preflight_minimum_disk_gb" if fresh else "")
            )
        seen.add(device)
    return findings


def memory_findings(meminfo: str, minimum_gb: int) -> list[str]:
    """Refuse too little memory; a machine sold as 4 GB reports a little less, hence the tenth."""
    total = int(re.search(r"^MemTotal:\s+(\d+) kB", meminfo, flags=re.MULTILINE)[1]) * 1024 / 1e9
    if total < minimum_gb * 0.9:
        return [f"memory: {total:.1f} GB, {minimum_gb} GB are needed; add memory or lower preflight_minimum_memory_gb"]
    return []


def kernel_findings() -> list[str]:
    """Refuse a machine whose init or kernel cannot carry services and containers."""
    findings = []
    if not Path("/run/systemd/system").is_dir():
        findings.append("init: systemd does not run as PID 1; boot the machine with systemd")
    if not re.search(r"\boverlay$", Path("/proc/filesystems").read_text(encoding="utf-8"), flags=re.MULTILINE):
        modprobe = shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin:/bin")
        probe = [modprobe, "--dry-run", "--quiet", "overlay"] if modprobe else ["false"]
        if subprocess.run(probe, check=False, capture_output=True, timeout=30).returncode:
            findings.append("kernel: no overlay file system, which Docker needs; boot a kernel that has overlayfs")
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    if unified.exists():
        controllers = set(unified.read_text(encoding="utf-8").split())
    else:
        rows = [line.split() for line in Path("/proc/cgroups").read_text(encoding="utf-8").splitlines()[1:]]
        controllers = {row[0] for row in rows if row[3] == "1"}
    missing = sorted({"cpu", "memory", "pids"} - controllers)
    if missing:
        findings.append(
            f"kernel: no cgroup controller {', '.join(missing)}, so sessions would have no limits; "
            "enable it on the kernel's command line (cgroup_enable=…)"
        )
    return findings


def architecture_findings(machine: str) -> list[str]:
    """Refuse processors that node and the Python packages are not built for."""
    if machine in ("x86_64", "aarch64"):
        return []
    return [f"processor: {machine} is not supported; use a machine with x86_64 or aarch64"]


def apt_ready() -> bool:
    """Tell whether apt can plan without changing anything: its Python bindings and package lists are there."""
    bindings = ["/usr/bin/python3", "-c", "import apt"]
    lists = Path("/var/lib/apt/lists")
    return (
        lists.is_dir()
        and any(entry.name.endswith(("_Packages", "_Packages.lz4")) for entry in lists.iterdir())
        and subprocess.run(bindings, check=False, capture_output=True, timeout=60).returncode == 0
    )


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "releases": {"type": "list", "elements": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "required": True},
            "minimum_disk_gb": {"type": "int", "required": True},
            "minimum_memory_gb": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    release = os_release(Path("/etc/os-release").read_text(encoding="utf-8"))
    fresh = not MARKER.exists()
    findings = [
        *os_finding(release, wanted["releases"]),
        *architecture_findings(platform.machine()),
        *kernel_findings(),
        *memory_findings(Path("/proc/meminfo").read_text(encoding="utf-8"), wanted["minimum_memory_gb"]),
        *disk_findings(wanted["minimum_disk_gb"], fresh),
        *port_findings(wanted["ports"]),
    ]
    module.exit_json(
        changed=False,
        findings=findings,
        machine={
            "release": release.get("VERSION_ID", ""),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "fresh": fresh,
            "apt_ready": apt_ready(),
        },
    )


if __name__ == "__main__":
    main()

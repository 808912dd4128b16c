"""A host's network: a namespace, a cable to the machine, and NAT on the way out.

The rule: whatever is added carries the host's name, and is taken away by that name alone.
"""

from __future__ import annotations

import itertools
import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .plain import NETWORK, BadInput, Cable, Failed
from .store import DIR, Host, lock

FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
# Other state directories may be in use on the same machine, so this is shared by all of them.
MACHINE = Path("/run/labstead-hosts")
_TABLES = ("filter", "nat", "mangle")


def namespace(name: str) -> str:
    """Return the name of the host's network namespace."""
    return f"labstead-{name}"


def interface(name: str) -> str:
    """Return the name of the machine's end of the cable."""
    return f"lab-{name}"


def networks_in_use() -> list[str]:
    """Return all IPv4 networks that the machine has an address in or a route to."""
    used = [
        f"{address['local']}/{address['prefixlen']}"
        for link in _ip_json("-4", "addr")
        for address in link.get("addr_info", [])
        if "local" in address
    ]
    routes = [str(r["dst"]) for r in _ip_json("-4", "route", "show", "table", "all") if "dst" in r]
    return used + [route for route in routes if route[0].isdigit()]


def claim(name: str) -> None:
    """Refuse a name that a host out of another state directory has on this machine."""
    link = _link(name)
    if link and link.get("ifalias") not in (None, str(DIR)):
        raise BadInput(f"a host '{name}' is up already, kept in {link['ifalias']}: choose another name")


def connect(host: Host) -> None:
    """Lay the cable and let the host out, starting afresh."""
    space, outer, cable = namespace(host.name), interface(host.name), host.cable
    disconnect(host.name)
    mtu = _uplink_mtu()
    with lock("network", folder=MACHINE):
        _must("ip", "netns", "add", space)
        peer = ("peer", "name", "eth0", "mtu", mtu, "netns", space)
        _must("ip", "link", "add", outer, "mtu", mtu, "type", "veth", *peer)
        _must("ip", "link", "set", outer, "alias", str(DIR))
        _must("ip", "addr", "add", f"{cable.machine}/30", "dev", outer)
        _must("ip", "link", "set", outer, "up")
        _must("ip", "-n", space, "addr", "add", f"{cable.host}/30", "dev", "eth0")
        _must("ip", "-n", space, "link", "set", "lo", "up")
        _must("ip", "-n", space, "link", "set", "eth0", "up")
        _must("ip", "-n", space, "route", "add", "default", "via", cable.machine)
        for table, rule in _rules(host.name, cable):
            comment = ("-m", "comment", "--comment", space)
            _must("iptables", "-w", "-t", table, "-I", *rule[:1], *comment, *rule[1:])
        if FORWARD.read_text().strip() == "0":
            (MACHINE / "forward-was-off").touch()
            FORWARD.write_text("1")


def disconnect(name: str) -> None:
    """Take away the cable, the namespace and the rules of a host, as far as they are there."""
    link = _link(name)
    if link and link.get("ifalias") not in (None, str(DIR)):
        return
    space = namespace(name)
    with lock("network", folder=MACHINE):
        if link:
            _may("ip", "link", "delete", interface(name))
        if Path("/run/netns", space).exists():
            _may("ip", "netns", "delete", space)
        for table in _TABLES:
            listed = _may("iptables", "-w", "-t", table, "-S")
            for rule in rules_of(listed, space):
                _may("iptables", "-w", "-t", table, "-D", *rule)
        was_off = MACHINE / "forward-was-off"
        if was_off.exists() and not any(_cables()):
            FORWARD.write_text("0")
            was_off.unlink()


def rules_of(listed: str, comment: str) -> list[list[str]]:
    """Pick the rules with exactly this comment out of `iptables -S`, without their `-A`."""
    found = []
    for line in listed.splitlines():
        words = shlex.split(line)
        if words[:1] == ["-A"] and ("--comment", comment) in itertools.pairwise(words):
            found.append(words[1:])
    return found


def remains() -> list[str]:
    """Return the names of all hosts of this state directory that still have a cable."""
    return [str(link["ifname"]).removeprefix("lab-") for link in _cables() if link.get("ifalias") == str(DIR)]


def _rules(name: str, cable: Cable) -> Iterator[tuple[str, list[str]]]:
    """Return what lets a host out: it may talk to anyone, hosts talk to each other without NAT."""
    outer = interface(name)
    out = ["-s", f"{cable.host}/32", "!", "-d", str(NETWORK)]
    yield "nat", ["POSTROUTING", *out, "-j", "MASQUERADE"]
    yield "filter", ["FORWARD", "-i", outer, "-j", "ACCEPT"]
    yield "filter", ["FORWARD", "-o", outer, "-j", "ACCEPT"]
    # Containers in the host believe in 1500 bytes even where the uplink carries less.
    clamp = ["-p", "tcp", "--tcp-flags", "SYN,RST", "SYN", "-j", "TCPMSS", "--clamp-mss-to-pmtu"]
    yield "mangle", ["FORWARD", "-i", outer, *clamp]
    yield "mangle", ["FORWARD", "-o", outer, *clamp]


def _uplink_mtu() -> str:
    """Return the MTU of the interface with the default route."""
    for route in _ip_json("-4", "route", "show", "default"):
        for link in _ip_json("link", "show", "dev", str(route["dev"])):
            return str(link["mtu"])
    return "1500"


def _cables() -> Iterator[dict[str, Any]]:
    """Return the machine's ends of all cables, whoever laid them."""
    for link in _ip_json("-d", "link", "show", "type", "veth"):
        if str(link.get("ifname", "")).startswith("lab-"):
            yield link


def _link(name: str) -> dict[str, Any] | None:
    """Return what the kernel says about the machine's end of a host's cable."""
    return next((link for link in _cables() if link["ifname"] == interface(name)), None)


def _ip_json(*words: str) -> list[dict[str, Any]]:
    """Ask ip, which answers an empty list of things with nothing at all."""
    text = _must("ip", "-j", *words)
    return [row for row in json.loads(text or "[]") if row]


def _must(*command: str) -> str:
    """Run a command that has to work."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"`{shlex.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def _may(*command: str) -> str:
    """Run a command that may fail because the thing is gone already."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout

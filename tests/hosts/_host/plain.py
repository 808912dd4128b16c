"""Names, addresses, errors and messages: the plain words that the other rooms share.

The rule: nothing here touches the machine beyond printing to stderr.
"""

from __future__ import annotations

import ipaddress
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SUITES = ("trixie", "bookworm")
# Reserved for documentation and examples (RFC 5737), so no real network is hidden by it.
NETWORK = ipaddress.ip_network("198.51.100.0/24")
# The machine's end of the cable is called `lab-NAME`, and the kernel allows 15 characters.
NAME_LIMIT = 11

_START = time.monotonic()


class BadInput(Exception):
    """Say what the caller got wrong: one line, exit code 2."""


class Failed(Exception):
    """Say what went wrong on the way: exit code 1, `log` holds the lines that explain it."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class Busy(Failed):
    """Say that another run holds a lock."""


def say(message: str) -> None:
    """Tell a person on stderr what is going on, with the seconds since the start."""
    print(f"[{time.monotonic() - _START:6.1f} s] {message}", file=sys.stderr, flush=True)


def check_name(name: str) -> str:
    """Return the name if it can be a host name and fits into an interface name."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
        raise BadInput(f"'{name}' is no host name: use small letters, digits and inner hyphens, for example 'demo'")
    if len(name) > NAME_LIMIT:
        raise BadInput(f"'{name}' is too long: a host name has at most {NAME_LIMIT} characters")
    if name.isdigit():
        raise BadInput(f"'{name}' is a number: a host name needs a letter")
    return name


def check_suite(suite: str) -> str:
    """Return the suite if there is a recipe for it."""
    if suite not in SUITES:
        raise BadInput(f"unknown suite '{suite}': choose one of {', '.join(SUITES)}")
    return suite


@dataclass(frozen=True)
class Cable:
    """The /30 between the machine and one host; slot 0 is 198.51.100.0/30, slot 63 the last."""

    slot: int

    @property
    def network(self) -> ipaddress.IPv4Network:
        """Return the /30 of this slot."""
        first = int(NETWORK.network_address) + 4 * self.slot
        return ipaddress.IPv4Network((first, 30))

    @property
    def machine(self) -> str:
        """Return the machine's address on the cable."""
        return str(self.network.network_address + 1)

    @property
    def host(self) -> str:
        """Return the host's address on the cable."""
        return str(self.network.network_address + 2)


def free_cable(slots: Iterable[int], networks_in_use: Iterable[str]) -> Cable:
    """Choose the lowest cable that no host has and that no network on the machine overlaps."""
    taken = set(slots)
    used = [ipaddress.ip_network(network, strict=False) for network in networks_in_use]
    for slot in range(NETWORK.num_addresses // 4):
        cable = Cable(slot)
        if slot not in taken and not any(cable.network.overlaps(network) for network in used):
            return cable
    raise Failed(f"no free address left in {NETWORK}: take some hosts down (`host list`)")


def merge_notes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Merge new notes into old ones, objects key by key; a null removes what was there."""
    merged = dict(old)
    for key, value in new.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            before = merged.get(key)
            merged[key] = merge_notes(before if isinstance(before, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def notes_from_pairs(pairs: Iterable[str]) -> dict[str, Any]:
    """Read `key=value` pairs; a dotted key (`admin.name=ada`) becomes an object."""
    notes: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not all(key.split(".")):
            raise BadInput(f"'{pair}' is no note: write key=value, for example url=https://demo")
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        notes = merge_notes(notes, nested)
    return notes

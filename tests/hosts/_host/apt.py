"""What the machine's own apt knows: which mirror to use, and how to reach it.

The rule: read the machine's settings, never change them; a host gets the same mirror as the machine.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

DEBIAN = "http://deb.debian.org/debian"
DEBIAN_SECURITY = "http://deb.debian.org/debian-security"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Names under which a machine may ask for Debian itself.
_RELEASES = r"(buster|bullseye|bookworm|trixie|forky|duke|sid|oldoldstable|oldstable|stable|testing|unstable)"
# What a mirror may need from its clients; everything else of apt.conf is the machine's own affair.
_PASSED_ON = re.compile(
    r"Acquire::(?:(?:http|https)::(?:Proxy(?:::[^ ]+)?|Timeout|Pipeline-Depth)"
    r'|Check-Valid-Until|Check-Date|Retries) ".+";',
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Source:
    """One archive: where it is, and one suite of it."""

    uri: str
    suite: str
    components: tuple[str, ...]


@dataclass(frozen=True)
class Mirror:
    """Where Debian and its security updates come from."""

    archive: str
    security: str

    def sources(self, suite: str) -> str:
        """Return the text of a host's debian.sources."""
        return (
            f"Types: deb\nURIs: {self.archive}\nSuites: {suite} {suite}-updates\n"
            f"Components: main\nSigned-By: {KEYRING}\n\n"
            f"Types: deb\nURIs: {self.security}\nSuites: {suite}-security\n"
            f"Components: main\nSigned-By: {KEYRING}\n"
        )


def parse_list(text: str) -> Iterator[Source]:
    """Read a classic one-line-per-archive `.list` file."""
    for line in text.splitlines():
        line = line.split("#", 1)[0].strip()
        match = re.fullmatch(r"deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)(.*)", line)
        if match:
            uri, suite, rest = match.groups()
            yield Source(uri.rstrip("/"), suite, tuple(rest.split()))


def parse_deb822(text: str) -> Iterator[Source]:
    """Read a `.sources` file: paragraphs of fields, lines continued by a leading blank."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for paragraph in re.split(r"\n(?:[ \t]*\n)+", "\n".join(lines).strip()):
        fields: dict[str, list[str]] = {}
        name = ""
        for line in paragraph.splitlines():
            if line[:1] not in (" ", "\t"):
                name, _, line = line.partition(":")
                name = name.strip().lower()
            fields.setdefault(name, []).extend(line.split())
        if "deb" not in fields.get("types", []):
            continue
        if [word.lower() for word in fields.get("enabled", ["yes"])] in (["no"], ["false"], ["0"]):
            continue
        for uri in fields.get("uris", []):
            for suite in fields.get("suites", []):
                yield Source(uri.rstrip("/"), suite, tuple(fields.get("components", [])))


def choose_mirror(sources: Iterable[Source]) -> Mirror:
    """Pick Debian's own archives among all the sources, which may name third parties too.

    An archive counts as Debian's if it offers the updates beside the release, or if its path ends in
    `debian`; without one (a machine that runs something else) the project's own mirror is used.
    """
    offers = [
        source for source in sources if "main" in source.components and urlsplit(source.uri).scheme in ("http", "https")
    ]
    updates = {s.uri for s in offers if re.fullmatch(_RELEASES + "-updates", s.suite)}
    releases = [s.uri for s in offers if re.fullmatch(_RELEASES, s.suite)]
    plain = [uri for uri in releases if urlsplit(uri).path.endswith("/debian")]
    archives = [uri for uri in releases if uri in updates] or plain
    securities = [s.uri for s in offers if re.fullmatch(_RELEASES + "(-security|/updates)", s.suite)]
    return Mirror(archives[0] if archives else DEBIAN, securities[0] if securities else DEBIAN_SECURITY)


def machine_mirror(etc: Path = Path("/etc/apt")) -> Mirror:
    """Read the mirror out of the machine's apt sources."""
    sources: list[Source] = []
    for path in (etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))):
        if path.suffix == ".list" and path.is_file():
            sources += parse_list(path.read_text(errors="replace"))
        elif path.suffix == ".sources" and path.is_file():
            sources += parse_deb822(path.read_text(errors="replace"))
    return choose_mirror(sources)


def passed_on(dump: str) -> str:
    """Keep those lines of `apt-config dump` that say how to reach the mirror."""
    return "".join(f"{line}\n" for line in dump.splitlines() if _PASSED_ON.fullmatch(line.strip()))


def machine_settings() -> str:
    """Return the machine's apt settings that a host needs too, as apt.conf lines."""
    found = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    return passed_on(found.stdout)


def proxy_environment(settings: str) -> dict[str, str]:
    """Return the variables through which debootstrap learns of apt's proxy."""
    environment = {}
    for line in settings.splitlines():
        match = re.fullmatch(r'Acquire::(https?)::Proxy "(.+)";', line.strip(), re.IGNORECASE)
        if match and match[2] != "DIRECT":
            environment[f"{match[1].lower()}_proxy"] = match[2]
    return environment


def lend_packages(cache: Path, archives: Path) -> None:
    """Hard-link cached packages into a host, whose apt then need not fetch them again."""
    for package in cache.glob("*.deb"):
        target = archives / package.name
        if not target.exists():
            os.link(package, target)


def harvest_packages(archives: Path, cache: Path) -> None:
    """Hard-link what a host fetched into the cache; apt only puts verified files there.

    Older versions of a package go, so that the cache does not grow for ever.
    """
    cache.mkdir(parents=True, exist_ok=True)
    for package in archives.glob("*.deb"):
        if package.is_file() and not package.is_symlink():
            try:
                os.link(package, cache / package.name)
            except FileExistsError:
                continue
    newest: dict[tuple[str, str], Path] = {}
    for package in sorted(cache.glob("*_*_*.deb")):
        name, version, architecture = package.stem.split("_", 2)
        rival = newest.setdefault((name, architecture), package)
        if rival == package:
            continue
        older = _older(version, rival.stem.split("_", 2)[1])
        (package if older else rival).unlink(missing_ok=True)
        newest[name, architecture] = rival if older else package


def _older(version: str, rival: str) -> bool:
    """Tell whether dpkg sorts the version before its rival (file names write `:` as `%3a`)."""
    words = [word.replace("%3a", ":") for word in (version, rival)]
    command = ["dpkg", "--compare-versions", words[0], "lt", words[1]]
    return subprocess.run(command, check=False).returncode == 0

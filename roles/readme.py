"""Write the README of each role from its meta/argument_specs.yml.

Usage: readme.py [--check]

The rule: the specs are the only source; a README that differs is wrong. `make docs` writes them, a contract test runs
the check.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parent
HEADER = "<!-- Written by `make docs` from meta/argument_specs.yml. -->"


def spec_of(role: Path) -> dict[str, Any]:
    """Read what a role is for and what it accepts."""
    text = (role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    spec: dict[str, Any] = yaml.safe_load(text)["argument_specs"]["main"]
    return spec


def lines_of(description: str | list[str]) -> list[str]:
    """Give the sentences of a description, each as one line."""
    return [description] if isinstance(description, str) else list(description)


def cell(value: Any) -> str:
    """Write a default as one reads it in YAML."""
    if value == "":
        return '`""`'
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def setting(name: str, spec: dict[str, Any], level: int = 3) -> list[str]:
    """Write one setting and, below it, the keys of its elements."""
    kind = spec["type"] + (f" of {spec['elements']}" if "elements" in spec else "")
    facts = [f"type: {kind}"]
    if "choices" in spec:
        facts.append("one of: " + ", ".join(f"`{choice}`" for choice in spec["choices"]))
    if "default" in spec:
        facts.append(f"default: {cell(spec['default'])}")
    if spec.get("required"):
        facts.append("required")
    text = [f"{'#' * level} {name}", "", "; ".join(facts), ""]
    text += [f"- {line}" for line in lines_of(spec["description"])]
    text.append("")
    for key, below in spec.get("options", {}).items():
        text += setting(f"{name}[].{key}", below, level + 1)
    return text


def borrowed(role: Path, owners: dict[str, str]) -> list[str]:
    """Find the settings of other roles that a role's files read."""
    files = [path for folder in ("tasks", "templates", "vars") for path in sorted((role / folder).glob("*"))]
    words = {word for path in files for word in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", path.read_text(encoding="utf-8"))}
    return sorted(word for word in words if owners.get(word, role.name) != role.name)


def readme(role: Path, owners: dict[str, str]) -> str:
    """Write the README of one role."""
    spec = spec_of(role)
    text = [f"# {role.name}", "", HEADER, "", f"{spec['short_description']}.", "", *lines_of(spec["description"]), ""]
    if spec["options"]:
        text += ["## Settings", ""]
        for name, option in spec["options"].items():
            text += setting(name, option)
    if others := borrowed(role, owners):
        text += ["## Settings of other roles that it reads", ""]
        text += [f"- `{name}` of [{owners[name]}](../{owners[name]}/README.md)" for name in others]
    return "\n".join(text).rstrip() + "\n"


def main(check: bool) -> int:
    """Write all READMEs, or name those that differ."""
    roles = [path.parents[1] for path in sorted(ROLES.glob("*/meta/argument_specs.yml"))]
    owners = {name: role.name for role in roles for name in spec_of(role)["options"]}
    stale = 0
    for role in roles:
        path, text = role / "README.md", readme(role, owners)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale += 1
            if check:
                print(f"{path.relative_to(ROLES.parent)} differs from the argument specs; run `make docs`")
            else:
                path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))

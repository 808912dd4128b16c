"""The parts of the session in JupyterLab: their files as JupyterLab wants them. What they do are browser tests."""

import hashlib
import json
from pathlib import Path

import pytest

FOLDERS = Path(__file__).parents[2] / "session" / "data" / "share" / "jupyter" / "labextensions"
PARTS = ("@labstead/disk", "@labstead/share")


def test_all_parts_are_named_here() -> None:
    assert sorted(path.parent.relative_to(FOLDERS).as_posix() for path in FOLDERS.glob("*/*/package.json")) == [*PARTS]


@pytest.mark.parametrize("name", PARTS)
def test_a_script_is_named_for_its_content(name: str) -> None:
    """Browsers keep it for as long as they like: a new one needs a new name."""
    (script,) = (FOLDERS / name / "static").iterdir()
    stem = name.split("/")[1]
    wanted = f"{stem}.{hashlib.sha256(script.read_bytes()).hexdigest()[:8]}.js"
    assert script.name == wanted, f"rename {script.name} to {wanted}, and in package.json"
    package = json.loads((FOLDERS / name / "package.json").read_text(encoding="utf-8"))
    assert package["jupyterlab"]["_build"] == {"load": f"static/{wanted}", "extension": "./extension"}


@pytest.mark.parametrize("name", PARTS)
def test_a_script_registers_under_its_packages_name(name: str) -> None:
    (script,) = (FOLDERS / name / "static").iterdir()
    package = json.loads((FOLDERS / name / "package.json").read_text(encoding="utf-8"))
    assert package["name"] == name
    assert f"const NAME = '{name}';" in script.read_text(encoding="utf-8")

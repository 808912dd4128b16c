"""The part of `share` in JupyterLab: its files as JupyterLab wants them. What it does is a browser test."""

import hashlib
import json
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "session" / "data" / "share" / "jupyter" / "labextensions" / "@labstead" / "share"


def test_the_script_is_named_for_its_content() -> None:
    """Browsers keep it for as long as they like: a new one needs a new name."""
    (script,) = (FOLDER / "static").iterdir()
    name = f"share.{hashlib.sha256(script.read_bytes()).hexdigest()[:8]}.js"
    assert script.name == name, f"rename {script.name} to {name}, and in package.json"
    package = json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))
    assert package["jupyterlab"]["_build"] == {"load": f"static/{name}", "extension": "./extension"}


def test_the_script_registers_under_the_packages_name() -> None:
    (script,) = (FOLDER / "static").iterdir()
    package = json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))
    assert package["name"] == FOLDER.relative_to(FOLDER.parents[1]).as_posix()
    assert f"const NAME = '{package['name']}';" in script.read_text(encoding="utf-8")

"""Commands about Slurm: what sessions and jobs need on the machine, and the images that jobs run in.

The one rule: they print one line for each thing that has changed and nothing where all was right, so that Ansible and
systemd may run them at any time.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import click
from pydantic import BaseModel

from labstead import settings
from labstead.cli.base import json_option, need_root, print_table


@click.group("compute")
def compute_group() -> None:
    """Look after what jobs in Slurm need."""


@compute_group.command("ensure")
@json_option
def compute_ensure(as_json: bool) -> None:
    """Put in place what sessions and jobs need for Slurm, and unpack the images of the sessions for jobs.

    Prints the paths of what has changed. An image takes some seconds; exit code 2 where there is no room for it.

    Example: labstead compute ensure
    """
    need_root()
    compute, sessions = settings.load_compute(), settings.load_sessions()
    from labstead.compute import images

    _print_paths(images.ensure(compute, sessions), as_json)


@compute_group.command("prune")
@json_option
def compute_prune(as_json: bool) -> None:
    """Remove unpacked images that no session has had for two weeks; prints their folders.

    It is run each night.

    Example: labstead compute prune
    """
    need_root()
    sessions = settings.load_sessions()
    from labstead.compute import images

    _print_paths(images.prune(sessions) if sessions.compute else [], as_json)


def _print_paths(paths: Sequence[Path], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"changed": [str(path) for path in paths]}))
    else:
        click.echo("".join(f"{path}\n" for path in paths), nl=False)


@compute_group.command("list")
@json_option
def compute_list(as_json: bool) -> None:
    """List the images that jobs can run in, and until when those are kept that sessions have no more.

    Example: labstead compute list --json
    """
    need_root()
    sessions = settings.load_sessions()
    from labstead.compute import images

    found = [(image, images.kept_until(image, sessions)) for image in images.found(sessions)]
    if as_json:
        rows = [{**_plain(image), "kept_until": until and until.isoformat()} for image, until in found]
        click.echo(json.dumps(rows, indent=2))
        return
    print_table(
        ("IMAGE", "DIGEST", "PYTHON", "DASK", "DISTRIBUTED", "KEPT UNTIL"),
        [(image.reference, image.digest, image.python, image.dask, image.distributed, until) for image, until in found],
    )


def _plain(model: BaseModel) -> dict[str, object]:
    return model.model_dump(mode="json")

"""Commands about file systems: what holds limits, and whether it does.

The one rule: they change nothing that stays.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from labstead.cli.base import Failed, complain, json_option, need_root, print_table
from labstead.errors import BadInput

_paths = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")


@click.group()
def disk() -> None:
    """Look at the file systems of homes, group folders and scratch."""


@disk.command("check")
@_paths
@json_option
def disk_check(paths: Sequence[Path], as_json: bool) -> None:
    """Tell which file system is below each PATH and whether it holds limits; exit code 1 where one does not.

    Example: labstead disk check /home /groups
    """
    from labstead import disks

    need_root()
    backends = [disks.find(path) for path in paths]
    problems = [backend.problem() for backend in backends]
    if as_json:
        rows = [
            {"path": str(path), "kind": backend.kind, "files": backend.counts_files, "problem": problem}
            for path, backend, problem in zip(paths, backends, problems, strict=True)
        ]
        click.echo(json.dumps(rows, indent=2))
    else:
        print_table(
            ("PATH", "KIND", "LIMITS"),
            [
                (path, backend.kind, "no" if problem else "bytes, files" if backend.counts_files else "bytes")
                for path, backend, problem in zip(paths, backends, problems, strict=True)
            ],
        )
        for problem in filter(None, problems):
            click.echo(problem, err=True)
    if any(problems):
        raise Failed


@disk.command("prove")
@_paths
@click.option("--may-wait", is_flag=True, help="What cannot be tried now is told, and is no failure.")
@json_option
def disk_prove(paths: Sequence[Path], may_wait: bool, as_json: bool) -> None:
    """Try on each file system below PATH... that limits hold: an ordinary user fills a folder that is then removed.

    It takes a second and 16 MB. Exit code 2 where a limit does not hold, 1 where that cannot be tried now: the disk is
    too full, or btrfs still counts.

    \b
    Examples:
      labstead disk prove /home /groups
      labstead disk prove --may-wait /home
    """
    from labstead import disks
    from labstead.disks.backend import DiskError, NotNow

    need_root()
    tried: dict[int, bool | None] = {}
    rows = []
    try:
        for path in paths:
            backend = disks.find(path)
            if backend.device not in tried:
                try:
                    backend.prove()
                except NotNow as error:
                    complain(str(error))
                    tried[backend.device] = None
                else:
                    tried[backend.device] = True
            rows.append({"path": str(path), "holds": tried[backend.device]})
    except DiskError as error:
        raise BadInput(str(error)) from None
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    if None in tried.values() and not may_wait:
        raise Failed

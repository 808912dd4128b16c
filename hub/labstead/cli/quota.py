"""`labstead quota`: what homes, group folders and scratch hold, and how much they may.

The one rule: what is shown is what the disks count and enforce; what is said here is noted, and the disks follow at
once, for sessions that run as well.
"""

import os
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import click
from click.shell_completion import CompletionItem

from labstead import usage
from labstead.accounts.client import Client
from labstead.accounts.protocol import SaidLimit, Space
from labstead.amounts import human_size, limit_words, percent
from labstead.cli.base import (
    Failed,
    Size,
    complain,
    complete_group,
    complete_user,
    json_option,
    need_root,
    print_json,
    print_table,
)
from labstead.errors import BadInput
from labstead.settings import SpaceKind

_COUNT = re.compile(r"([0-9]{1,30})([kM]?)")
_THOUSANDS = {"": 1, "k": 1000, "M": 1_000_000}
_MOST_FILES = 2**63 - 1
"""More are in no limit of the kernel's."""

Default = Literal["default"]


class Count(click.ParamType[int]):
    """A number of files and folders: 500000, 500k, 2M; or `none`."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Give the number; 0 for `none`."""
        if isinstance(value, int):
            return value
        match = _COUNT.fullmatch(value)
        if value == "none":
            return 0
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is not a number of files; write it like 500k, or none", param, ctx)
        files = int(match[1]) * _THOUSANDS[match[2]]
        if files > _MOST_FILES:
            self.fail(f"{value} are too many files; the most are {_MOST_FILES // 1_000_000}M", param, ctx)
        return files


class OrDefault(click.ParamType[int | Default]):
    """An amount; or `default`, which takes back what was said."""

    def __init__(self, amount: Size | Count) -> None:
        self._amount = amount
        self.name = amount.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | Default:
        """Give the amount, or `default` as it is."""
        if value == "default":
            return "default"
        return self._amount.convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Complete the words."""
        return [CompletionItem(word) for word in ("none", "default") if word.startswith(incomplete)]


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    is_group = ctx.params.get("group") or ctx.params.get("members")
    return complete_group(ctx, param, incomplete) if is_group else complete_user(ctx, param, incomplete)


@click.group()
def quota() -> None:
    """Limits of homes, group folders and scratch."""


# --- looking


def _percent(used: int | None, limit: int | None) -> str:
    part = percent(used, limit)
    return "" if part is None else f"{part}%"


def _print(spaces: Iterable[Space]) -> None:
    print_table(
        ("SPACE", "NAME", "USED", "LIMIT", "%", "FILES", "LIMIT", "%", "SAID BY", "FOLDER"),
        [
            (
                *(s.kind, s.name),
                *(human_size(s.used_bytes), human_size(s.limit_bytes), _percent(s.used_bytes, s.limit_bytes)),
                *(s.used_files, s.limit_files, _percent(s.used_files, s.limit_files)),
                s.said_by if s.limit_bytes else "",
                s.path,
            )
            for s in spaces
        ],
    )


@quota.command("show")
@click.argument("name", required=False, shell_complete=_complete)
@click.option("--group", is_flag=True, help="NAME is a group; show its folder.")
@json_option
def show(name: str | None, group: bool, as_json: bool) -> None:
    """Show what is used and what may be: everything for root, for others their own.

    With NAME, what this person has, folders of their groups too. SAID BY is who says the limit: the site for all, a
    group for its members, or an administrator for this very space (own). Where a file system does not count, USED is
    of last night.

    \b
    Examples:
      labstead quota show
      labstead quota show anna
      labstead quota show ocean --group --json
    """
    if group and name is None:
        raise BadInput("labstead: --group needs the name of a group")
    client = Client()
    spaces: Sequence[Space] = client.spaces(None if group else name)
    if group:
        spaces = [space for space in spaces if (space.kind, space.name) == ("group", name)]
        if not spaces:
            raise BadInput(f"labstead: {name} is not a group of the hub; see `labstead group list`")
    spaces = usage.with_measured(spaces)
    if as_json:
        print_json(spaces)
        return
    _print(spaces)
    # What a group says of its members is told to root alone.
    for said in client.limits() if group and os.geteuid() == 0 else ():
        if said.of_members and said.name == name:
            click.echo(f"each member's {said.kind}: {limit_words(said.bytes, said.files)}")


# --- setting


def said_limit(client: Client, kind: SpaceKind, name: str, of_members: bool = False) -> SaidLimit | None:
    """Give what was said of a space, or by a group of its members' spaces; None where nothing was."""
    wanted = (kind, name, of_members)
    return next((said for said in client.limits() if (said.kind, said.name, said.of_members) == wanted), None)


def _kind(scratch: bool, group: bool, members: bool) -> SpaceKind:
    if group and scratch and not members:
        raise BadInput("labstead: a group has no scratch; --members is about the scratch of each of its members")
    if scratch:
        return "scratch"
    return "group" if group and not members else "home"


@quota.command("set")
@click.argument("name", shell_complete=_complete)
@click.argument("size", type=OrDefault(Size()), required=False)
@click.option("--files", type=OrDefault(Count()), help="Limit of files and folders, like 500k, or none, or default.")
@click.option("--scratch", is_flag=True, help="It is the limit of scratch, not of the home.")
@click.option("--group", is_flag=True, help="NAME is a group; it is the limit of its folder.")
@click.option("--members", is_flag=True, help="NAME is a group; it is the limit of each member's home, or scratch.")
@json_option
def set_limit(
    name: str,
    size: int | Default | None,
    files: int | Default | None,
    scratch: bool,
    group: bool,
    members: bool,
    as_json: bool,
) -> None:
    """Set how much the home of NAME may hold: SIZE like 20G, or none.

    `default` takes back what was said, of files too: then the largest of what NAME's groups say holds, or what the
    site says of all. What is not given stays as it is. It holds at once, in sessions that run as well.

    \b
    Examples:
      labstead quota set anna 20G --files 500k
      labstead quota set anna 100G --scratch
      labstead quota set anna default
      labstead quota set ocean 2T --group
      labstead quota set ocean 50G --members
    """
    need_root()
    kind = _kind(scratch, group, members)
    if size is None and files is None:
        raise BadInput("labstead: give a size like 20G, or --files")
    client = Client()
    keep: list[Literal["bytes", "files"]] = ["bytes"] if size is None else []
    keep += ["files"] if files is None and size != "default" else []
    before = said_limit(client, kind, name, members)
    followed = client.set_limit(
        kind,
        name,
        bytes=None if size == "default" else size,
        files=None if files == "default" else files,
        of_members=members,
        keep=tuple(keep),
    )
    if as_json:
        print_json(followed.spaces)
    else:
        for space in followed.spaces:
            click.echo(f"{space.words}: {limit_words(space.limit_bytes, space.limit_files)}")
        if not followed.spaces:
            is_same = said_limit(client, kind, name, members) == before
            click.echo(f"{name}: {'as it was' if is_same else 'noted; no limit is another one for that'}")
    for problem in followed.problems:
        complain(problem)
    if followed.problems:
        raise Failed

"""What the commands have in common: errors in one line, output for people and programs, completion of names.

The one rule: what somebody typed wrong changes nothing, and is told in one line with exit code 2.
"""

import json
import os
import pwd
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem
from pydantic import BaseModel

from labstead import settings
from labstead.errors import AccountRefused, BadInput, LabsteadError, Refusal
from labstead.identity import FIRST_PERSON

_F = TypeVar("_F", bound=Callable[..., Any])


class Failed(LabsteadError):
    """Some of what was asked for could not be done; each has been told already. The command exits with 1."""


class Command(click.Group):
    """The group of all commands, which tells errors as one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; bad input is exit code 2, failure 1."""
        try:
            return super().invoke(ctx)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else ctx.command_path
            click.echo(f"{where}: {error.format_message().rstrip('.')}; see `{where} --help`", err=True)
            ctx.exit(2)
        except BadInput as error:
            click.echo(str(error), err=True)
            ctx.exit(2)
        except Failed:
            ctx.exit(1)
        except LabsteadError as error:
            click.echo(f"labstead: {error}", err=True)
            ctx.exit(2 if isinstance(error, AccountRefused) and error.code is not Refusal.FAILED else 1)


def need_root() -> None:
    """Refuse anybody but root.

    :raises BadInput: for others
    """
    if os.geteuid() != 0:
        raise BadInput("labstead: this command is for root; use sudo")


# --- what goes in

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask whether it is meant.")


class Day(click.ParamType[date | str]):
    """A date, or `never`."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date | str:
        """Read `2026-12-31`, or give `never` as it is."""
        if value == "never" or isinstance(value, date):
            return value  # type: ignore[no-any-return]
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a date; write it like 2026-12-31, or never", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Complete `never`."""
        return [CompletionItem("never")] if "never".startswith(incomplete) else []


class Names(click.ParamType[tuple[str, ...]]):
    """Several names with commas between them: anna,bert."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split at the commas."""
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in value.split(","))
        if not all(names):
            self.fail(f"{value!r}: write names with commas between them, like anna,bert", param, ctx)
        return tuple(dict.fromkeys(names))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the last of the names."""
        before, comma, last = incomplete.rpartition(",")
        given = before.split(",")
        return [CompletionItem(before + comma + name) for name in complete_user(ctx, param, last) if name not in given]


class Size(click.ParamType[int]):
    """A size as in the settings: 500G; or `none`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Give bytes; 0 for `none`."""
        if isinstance(value, int):
            return value
        try:
            return 0 if value == "none" else settings.parse_size(value)
        except ValueError as error:
            self.fail(f"{error}, or none", param, ctx)


def confirm(question: str, yes: bool) -> None:
    """Ask before something is taken away.

    :raises BadInput: when there is nobody to ask
    :raises click.Abort: when it is not meant; exit code 1
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadInput("labstead: this takes something away; give --yes where nobody can be asked")
    click.confirm(question, abort=True, err=True)


# --- what comes out


def print_json(value: BaseModel | Sequence[BaseModel]) -> None:
    """Print models as JSON: an object, or a list of them."""
    data = value.model_dump(mode="json") if isinstance(value, BaseModel) else [v.model_dump(mode="json") for v in value]
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print columns; nothing but the head where there are no rows."""
    cells = [tuple(head), *(tuple("-" if cell in ("", None) else str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print one thing's properties, a line each; those that are empty are left out."""
    for label, value in fields:
        if value not in ("", None, ()):
            click.echo(f"{label + ':':<14} {value}")


def complain(words: str) -> None:
    """Tell of one thing that went wrong while others go on."""
    click.echo(f"labstead: {words}", err=True)


class SecretFile:
    """A file for passwords or links, which only its owner reads.

    :param path: it must not be there
    :raises BadInput: when it is, or cannot be made; nothing has been changed then
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._stream = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")
        except FileExistsError:
            raise BadInput(f"{path}: there is such a file already; name a new one") from None
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}") from None

    def write(self, text: str) -> None:
        """Put the content on the disk."""
        with self._stream as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())

    def discard(self) -> None:
        """Take the file away: there is nothing to put in."""
        self._stream.close()
        self.path.unlink(missing_ok=True)


# --- what Tab completes


def _known_users() -> list[str]:
    from labstead.accounts.client import Client

    try:
        return [account.name for account in Client().accounts()]
    except LabsteadError:  # only root and the hub are told; sudo completes as whoever typed it
        return sorted(entry.pw_name for entry in pwd.getpwall() if FIRST_PERSON <= entry.pw_uid < 65534)


def complete_user(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a person of the hub."""
    given = ctx.params.get(param.name or "") or ()
    return [name for name in _known_users() if name.startswith(incomplete) and name not in given]


def complete_group(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Complete the name of a group with a folder."""
    from labstead.accounts.client import Client

    try:
        return [group.name for group in Client().groups() if group.name.startswith(incomplete)]
    except LabsteadError:
        return []

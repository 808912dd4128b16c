"""The `labstead` command.

The one rule: commands print what programs and people can read, and exit with 0 for done, 1 for failed, 2 for bad input.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from labstead import __version__, settings
from labstead.errors import AccountRefused, BadInput, LabsteadError, Refusal
from labstead.names import problem_with_name


class _Command(click.Group):
    """A group that tells errors as one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BadInput as error:
            click.echo(str(error), err=True)
            ctx.exit(2)
        except LabsteadError as error:
            click.echo(f"labstead: {error}", err=True)
            ctx.exit(2 if isinstance(error, AccountRefused) and error.code is not Refusal.FAILED else 1)


def _need_root() -> None:
    if os.geteuid() != 0:
        raise BadInput("labstead: this command is for root; use sudo")


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="labstead")
def main() -> None:
    """Run and look after a labstead hub."""


@main.group()
def config() -> None:
    """Look at settings files."""


@config.command("check")
@click.argument("kind", type=click.Choice(sorted(settings.KINDS)))
@click.argument("file", type=click.Path(path_type=Path))
def config_check(kind: str, file: Path) -> None:
    """Check a settings FILE of the given KIND; a line for each mistake, exit code 2.

    Example: labstead config check hub /etc/labstead/hub.yml
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from None
    settings.parse(settings.KINDS[kind], text, f"{kind}.yml")


@main.group("secrets")
def secrets_group() -> None:
    """Look after the machine's secrets."""


@secrets_group.command("ensure")
def secrets_ensure() -> None:
    """Make missing secrets under /etc/labstead/secrets; prints the names of files written."""
    from labstead import secrets

    _need_root()
    for name in secrets.ensure():
        click.echo(name)


@main.command("unit-outdated")
@click.argument("unit")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
def unit_outdated(unit: str, files: Sequence[Path]) -> None:
    """Print UNIT if it runs but started before one of FILES changed, or if it failed; else nothing.

    Example: labstead unit-outdated labstead-hub.service /etc/labstead/hub.yml
    """
    from labstead import units

    if units.is_outdated(unit, files):
        click.echo(unit)


@main.group("accounts")
def accounts_group() -> None:
    """The accounts service."""


@accounts_group.command("serve")
def accounts_serve() -> None:
    """Answer at the socket that systemd passes (labstead-accounts.service)."""
    from labstead.accounts import server

    server.main()


@main.group("gate")
def gate_group() -> None:
    """The gate to Docker."""


@gate_group.command("serve")
def gate_serve() -> None:
    """Answer at the socket that systemd passes (labstead-gate.service)."""
    from labstead import gate

    gate.main()


@main.group("hub")
def hub_group() -> None:
    """JupyterHub."""


@hub_group.command("serve")
def hub_serve() -> None:
    """Run JupyterHub with labstead's settings (labstead-hub.service)."""
    import labstead.hub

    # Wrong settings end here, in one line, rather than in JupyterHub's traceback.
    settings.load_hub()
    settings.load_sessions()
    jupyterhub = Path(sys.executable).with_name("jupyterhub")
    configuration = Path(labstead.hub.__file__).with_name("jupyterhub_config.py")
    os.execv(  # noqa: S606 - a fixed program, in place of this one
        jupyterhub, [str(jupyterhub), "--config", str(configuration)]
    )


@main.group("admin")
def admin_group() -> None:
    """Administrators of the hub."""


@admin_group.command("seed")
@click.argument("name")
def admin_seed(name: str) -> None:
    """Make the administrator NAME: Unix account, log-in, and a password under /etc/labstead/secrets.

    A Unix account that exists is taken as it is. Nothing happens if the log-in exists.
    Prints `created NAME` if it made something.
    """
    from labstead import secrets
    from labstead.accounts.client import Client
    from labstead.hub import database

    _need_root()
    if problem := problem_with_name(name):
        raise BadInput(f"hub_admins: {problem}")
    client = Client()
    try:
        changed = client.link(name).changed
    except AccountRefused as refused:
        if refused.code is not Refusal.UNKNOWN:
            raise
        changed = client.create(name).changed
    # The file is written first: a log-in whose password nobody knows would be of no use.
    file = secrets.admin_password_file(name)
    if is_new := not file.exists():
        secrets.keep_admin_password(name, secrets.new_password())
    if database.run_as_hub(name, file.read_text(encoding="utf-8").strip(), replace=False):
        changed = True
    elif is_new:
        file.unlink()  # the log-in was there, with a password of its own
    if changed:
        click.echo(f"created {name}")


@main.group("user")
def user_group() -> None:
    """People of the hub."""


def _show_accounts(name: str | None, as_json: bool) -> None:
    from labstead.accounts.client import Client

    _need_root()
    accounts = Client().accounts(name)
    if as_json:
        click.echo(json.dumps([account.model_dump(exclude={"changed"}) for account in accounts], indent=2))
        return
    for account in accounts:
        click.echo(f"{account.name:32} {account.uid:>8} {account.kind:8} {account.state:8} {account.created_at}")


@user_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def user_list(as_json: bool) -> None:
    """List the hub's accounts: name, uid, kind, state, since when (UTC).

    Example: labstead user list --json
    """
    _show_accounts(None, as_json)


@user_group.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def user_show(name: str, as_json: bool) -> None:
    """Show one account of the hub.

    Example: labstead user show anna
    """
    _show_accounts(name, as_json)


@main.command("selfcheck")
@click.option("--url", help="Public address of the hub; default: from hub.yml.")
@click.option(
    "--ca", type=click.Path(exists=True, path_type=Path), help="Certificates to trust; default: what the hub uses."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def selfcheck(url: str | None, ca: Path | None, as_json: bool) -> None:
    """Make a whole session through the public address and remove it; exit code 1 if a step fails.

    Example: labstead selfcheck --json
    """
    from labstead import selfcheck as check

    _need_root()
    steps = check.run(url or settings.load_hub().url, ca or check.authority(), settings.load_sessions().start_timeout)
    if as_json:
        click.echo(json.dumps([{"step": step.name, "seconds": step.seconds} for step in steps], indent=2))
        return
    for step in steps:
        click.echo(f"{step.name:16} {step.seconds:8.2f} s")

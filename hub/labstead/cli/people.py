"""Commands that bring the whole of people and groups to what was declared, or to what the hour and the day ask for.

The one rule: they print one line for each change and nothing where there is none, so that Ansible and cron may run
them at any time.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

import click

from labstead import settings
from labstead.accounts.client import Client
from labstead.accounts.protocol import Account
from labstead.administration import Site
from labstead.amounts import limit_words
from labstead.cli.base import Failed, complain, complete_user, json_option, need_root, print_json
from labstead.errors import AccountRefused, BadInput, Refusal
from labstead.names import problem_with_name
from labstead.settings import Door

if TYPE_CHECKING:
    from labstead.tidy import Line

check_option = click.option("--check", is_flag=True, help="Only tell what would be done.")


@click.command("apply")
@check_option
@click.option(
    "--file", type=click.File(encoding="utf-8"), help="Read FILE, or - for standard input, in place of people.yml."
)
@json_option
def apply(check: bool, file: TextIO | None, as_json: bool) -> None:
    """Make the people and groups that the inventory declares (accounts_users, accounts_groups).

    site.yml writes them to /etc/labstead/people.yml and runs this. What is not declared is left as it is: somebody who
    was taken off the list stays. The disks are made to hold all limits; what was there before limits is taken in, which
    may take long the first time.

    \b
    Examples:
      labstead apply --check
      labstead apply
    """
    need_root()
    from labstead import declared

    site = Site()
    people = settings.parse(settings.People, _text(file), file.name) if file else settings.load_people()
    plan = declared.plan(people, site)
    if not check:
        done, problems = declared.carry_out(plan, site)
    else:
        done, problems = [step.words for step in plan], []
    followed = site.accounts.follow_limits(adopt=not check, check=check)
    done += [f"{space.words}: {limit_words(space.limit_bytes, space.limit_files)}" for space in followed.spaces]
    if as_json:
        told = {"changes": done, "problems": problems, "limits": followed.problems, "advice": followed.advice}
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        for line in done:
            click.echo(line)
    # A limit that does not hold everywhere is told of here and each night, but is no reason to leave the rest undone.
    for line in (*problems, *followed.problems, *followed.advice):
        complain(line)
    if problems:
        raise Failed


def _text(file: TextIO) -> str:
    try:
        return file.read()
    except UnicodeDecodeError as error:
        raise BadInput(f"{file.name}: not UTF-8 (byte {error.start})") from None


@click.group("admin")
def admin_group() -> None:
    """Administrators of the hub."""


@admin_group.command("seed")
@click.argument("name", shell_complete=complete_user)
@json_option
def admin_seed(name: str, as_json: bool) -> None:
    """Make sure that the administrator NAME can come in.

    An account that the machine has is let in by the hub's main door. Another one is made, with a log-in where the hub
    has passwords of its own; the first one is then in /etc/labstead/secrets/admin-NAME.password. What is there already
    is left as it is. Prints `created NAME` if it made something.

    Example: labstead admin seed carla
    """
    need_root()
    if problem := problem_with_name(name):
        raise BadInput(f"hub_admins: {problem}")
    changed = _seed(Site(), name)
    if as_json:
        click.echo(json.dumps({"name": name, "created": changed}))
    elif changed:
        click.echo(f"created {name}")


def _find(client: Client, name: str) -> Account | None:
    try:
        (account,) = client.accounts(name)
    except AccountRefused as refused:
        if refused.code is not Refusal.UNKNOWN:
            raise
        return None
    return account


def _is_on_machine(name: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _seed(site: Site, name: str) -> bool:
    """Give an administrator account and log-in; tell whether anything was made."""
    account = _find(site.accounts, name)
    existing = _is_on_machine(name) if account is None else account.kind == "linked"
    main = site.hub.doors[0]
    door: Door = account.door if account else main if existing or "native" not in site.hub.doors else "native"
    if existing and door not in site.hub.doors:
        door = main  # the site has changed its doors
    if door not in site.hub.doors:
        doors = ", ".join(site.hub.doors)
        raise BadInput(f"hub_admins: {name} comes in by the door {door}, which is not among hub_doors ({doors})")
    if door == "pam" and not existing:
        raise BadInput(f"hub_admins: {name} is not an account of this machine, and the hub's only door is pam")
    # The log-in comes first: an account never meets somebody else's password.
    changed = _seed_login(name) if door == "native" else False
    # One that was cut off is gone on with.
    account = site.accounts.link(name, door) if existing else site.accounts.add(name, door)
    return account.changed or changed


def _seed_login(name: str) -> bool:
    from labstead import secrets
    from labstead.hub import login_protocol

    # The file is written first: a log-in whose password nobody knows would be of no use.
    file = secrets.admin_password_file(name)
    if is_new := not file.exists():
        secrets.keep_admin_password(name, secrets.new_password())
    if login_protocol.set_login(name, file.read_text(encoding="utf-8").strip(), replace=False):
        return True
    if is_new:
        file.unlink()  # the log-in was there, with a password of its own
    return False


@click.command("cull")
@check_option
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=10,
    show_default=True,
    metavar="MINUTES",
    help="For how long earlier runs must have found something so before anything is done; 0: not at all.",
)
@json_option
def cull(check: bool, patience: float, as_json: bool) -> None:
    """Stop sessions that nobody uses, and end jobs in Slurm that nobody is left for.

    sessions_idle_hours and sessions_idle_hours_with_jobs say how long a session may be idle. Ended are jobs of Dask
    whose owner has no session, and those of people whose accounts are closed. labstead-cull.timer runs this every five
    minutes; it may also be run by hand at any time.

    \b
    Examples:
      labstead cull --check
      labstead cull --patience 0
    """
    need_root()
    from labstead import cull as work
    from labstead.hub.api import Api

    site = Site()
    if work.is_needed(site.sessions):
        _tell(work.run(site, Api(site.hub), check=check, patience=patience), as_json)
    elif as_json:
        print_json([])


@click.command("tidy")
@check_option
@json_option
def tidy(check: bool, as_json: bool) -> None:
    """Do what the day asks for: warn, close, archive, delete, measure.

    labstead-tidy.timer runs this once a day; it may also be run by hand at any time.

    \b
    Examples:
      labstead tidy --check
      labstead tidy
    """
    need_root()
    from labstead import tidy as work

    _tell(work.run(check), as_json)


def _tell(done: Iterable["Line"], as_json: bool) -> None:
    """Print what is done as it is done; :raises Failed: when some of it was not."""
    lines = []
    for line in done:
        lines.append(line)
        if line.failed:
            complain(line.words)
        elif not as_json:
            click.echo(line.words)
    if as_json:
        print_json(lines)
    if any(line.failed for line in lines):
        raise Failed

"""`labstead group`: groups with folders.

The one rule: the accounts service decides who may do what, by who the kernel says the caller is; managers use these
commands for their own groups without sudo.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from labstead import settings
from labstead.accounts.client import Client
from labstead.accounts.protocol import Group
from labstead.amounts import human_size
from labstead.cli.base import (
    Names,
    Size,
    complete_group,
    confirm,
    json_option,
    need_root,
    print_fields,
    print_json,
    print_table,
    yes_option,
)
from labstead.errors import AccountRefused, BadInput, Refusal


@click.group()
def group() -> None:
    """Groups with folders."""


_name = click.argument("name", shell_complete=complete_group)


def _find(name: str) -> Group:
    (found,) = Client().groups(name)
    return found


def _report(found: Group, as_json: bool, words: str) -> None:
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found.name}: {words if found.changed else 'as it was'}")


@group.command("add")
@click.argument("name")
@click.option("--members", type=Names(), default=(), help="People who are in it, with commas between them.")
@click.option("--managers", type=Names(), help="People who may add and remove members.")
@click.option("--quota", type=Size(), help="Limit of the folder, like 500G.")
@click.option("--existing", is_flag=True, help="Give a folder to a group that the machine knows already.")
@json_option
def add(
    name: str,
    members: tuple[str, ...],
    managers: tuple[str, ...] | None,
    quota: int | None,
    existing: bool,
    as_json: bool,
) -> None:
    """Make the group NAME and its folder, which its members have in their sessions from their next start.

    \b
    Examples:
      labstead group add ocean --members anna,bert --managers carla --quota 500G
      labstead group add physics --existing
    """
    need_root()
    client = Client()
    if name in {found.name for found in client.groups()}:
        raise BadInput(f"labstead: there is a group {name} already; see `labstead group show {name}`")
    if existing and (members or managers):
        raise BadInput("labstead: who is in an existing group is not labstead's; leave out --members and --managers")
    _require_people((*members, *(managers or ())))
    if quota:
        _require_limits()
    made = client.set_group(name, managers=managers, existing=existing)
    if quota is not None:
        client.set_limit("group", name, quota)
    if members:
        made = client.change_members(name, add=members).model_copy(update={"changed": True})
    _report(made, as_json, f"made, folder {made.folder}")


def _require_limits() -> None:
    """Refuse a limit that nothing would hold, before a group is made for it.

    :raises BadInput: with what to change
    """
    from labstead import disks

    if problem := disks.find(settings.load_accounts().group_root).problem():
        raise BadInput(f"labstead: {problem}")


def _require_people(names: Sequence[str]) -> None:
    """Refuse names that nobody has, before a group is made for them.

    :raises BadInput: with one line for each
    """
    from labstead import identity

    lines = []
    for name in dict.fromkeys(names):
        try:
            identity.look_up(name)
        except AccountRefused as refused:
            if refused.code is not Refusal.LOCKED:  # no login shell: a member all the same
                lines.append(f"labstead: {refused}")
    if lines:
        raise BadInput("\n".join(lines))


@group.command("list")
@json_option
def list_groups(as_json: bool) -> None:
    """List groups with folders: all of them for root, for others those that they are in or manage.

    \b
    Examples:
      labstead group list
      labstead group list --json
    """
    client = Client()
    groups = client.groups()
    if as_json:
        print_json(groups)
        return
    limits = {space.name: space.limit_bytes for space in client.spaces() if space.kind == "group"}
    print_table(
        ("NAME", "GID", "FOLDER", "QUOTA", "MANAGERS", "MEMBERS"),
        [
            (g.name, g.gid, g.folder, human_size(limits.get(g.name)), ",".join(g.managers), len(g.members))
            for g in groups
        ],
    )


@group.command("show")
@_name
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one group: folder, members, managers.

    Example: labstead group show ocean
    """
    found = _find(name)
    if as_json:
        print_json(found)
        return
    space = next((space for space in Client().spaces() if (space.kind, space.name) == ("group", name)), None)
    print_fields(
        (
            ("name", found.name),
            ("folder", found.folder),
            ("group", f"{found.kind}, gid {found.gid}"),
            ("used", human_size(space.used_bytes if space else None)),
            ("quota", human_size(space.limit_bytes if space else None)),
            ("managers", ", ".join(found.managers)),
            ("members", ", ".join(found.members)),
            ("declared", ", ".join(found.declared)),
            ("since", found.created_at),
        )
    )


@group.command("members")
@_name
@click.option("--add", "added", type=Names(), default=(), help="People to add, with commas between them.")
@click.option("--remove", "removed", type=Names(), default=(), help="People to remove, with commas between them.")
@json_option
def members(name: str, added: tuple[str, ...], removed: tuple[str, ...], as_json: bool) -> None:
    """Add and remove members, or list them; as root, or as a manager of the group.

    Files stay. Sessions that run keep what they have until their next start.

    \b
    Examples:
      labstead group members ocean
      labstead group members ocean --add bert,dora --remove anna
    """
    if both := sorted(set(added) & set(removed)):
        raise BadInput(f"labstead: {', '.join(both)}: either --add or --remove")
    if not (added or removed):
        found = _find(name)
        if as_json:
            print_json(found)
        else:
            click.echo("".join(f"{member}\n" for member in found.members), nl=False)
        return
    _report(Client().change_members(name, add=added, remove=removed), as_json, "changed")


@group.command("managers")
@_name
@click.option("--add", "added", type=Names(), default=(), help="People to add, with commas between them.")
@click.option("--remove", "removed", type=Names(), default=(), help="People to remove, with commas between them.")
@json_option
def managers(name: str, added: tuple[str, ...], removed: tuple[str, ...], as_json: bool) -> None:
    """Add and remove managers, who may add and remove members, or list them.

    \b
    Examples:
      labstead group managers ocean
      labstead group managers ocean --add carla --remove dora
    """
    if both := sorted(set(added) & set(removed)):
        raise BadInput(f"labstead: {', '.join(both)}: either --add or --remove")
    found = _find(name)
    if added or removed:
        need_root()
        if missing := [manager for manager in removed if manager not in found.managers]:
            raise BadInput(f"labstead: {', '.join(missing)}: not a manager of {name}")
        _require_people(added)
        kept = [manager for manager in found.managers if manager not in removed]
        wanted = tuple(dict.fromkeys((*kept, *added)))
        _report(Client().set_group(name, managers=wanted), as_json, "changed")
    elif as_json:
        print_json(found)
    else:
        click.echo("".join(f"{manager}\n" for manager in found.managers), nl=False)


@group.command("remove")
@_name
@click.option(
    "--archive/--delete-files", "archive", default=True, help="Put the folder into an archive (default), or delete it."
)
@yes_option
@json_option
def remove(name: str, archive: bool, yes: bool, as_json: bool) -> None:
    """Remove a group for good; its folder goes into an archive, or is deleted.

    Nobody ever gets its gid again. A group that the machine had before keeps existing, without a folder.

    \b
    Examples:
      labstead group remove ocean
      labstead group remove ocean --delete-files --yes
    """
    need_root()
    found = _find(name)
    files = "nothing: it is DELETED" if not archive else "an archive"
    confirm(f"Remove the group {name} (gid {found.gid})? Its folder {found.folder} goes into {files}.", yes)
    client = Client()
    client.remove_group(name)
    kept = _put_away(found, archive)
    # Now that its files are gone: until here they counted against those who had made them.
    client.follow_limits()
    if as_json:
        click.echo(json.dumps({"name": name, "gid": found.gid, "archive": str(kept) if kept else None}, indent=2))
    else:
        click.echo(f"{name}: removed" + (f", folder in {kept}" if kept else ""))


def _put_away(found: Group, keep: bool) -> Path | None:
    """Archive or delete the folder of a group that was removed; give the archive."""
    from labstead import archive

    where = settings.load_accounts()
    if keep:
        return archive.archive_folder(where, found)
    archive.delete_folder(where, found)
    return None

"""Commands that look after the machine: settings, secrets, the services themselves, the self-check.

The one rule: what is loaded here is loaded when a command runs, so that completion by Tab stays quick.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from labstead import settings
from labstead.cli.base import json_option, need_root
from labstead.errors import BadInput

_SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "fish": FishComplete, "zsh": ZshComplete}


@click.group()
def config() -> None:
    """Look at settings files."""


@config.command("check")
@click.argument("kind", type=click.Choice(sorted(settings.KINDS)))
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def config_check(kind: str, file: Path, as_json: bool) -> None:
    """Check a settings FILE of the given KIND; a line for each mistake, exit code 2.

    Example: labstead config check hub /etc/labstead/hub.yml
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from None
    try:
        settings.parse(settings.KINDS[kind], text, f"{kind}.yml")
    except BadInput as error:
        if not as_json:
            raise
        click.echo(json.dumps({"mistakes": str(error).splitlines()}, indent=2))
        raise click.exceptions.Exit(2) from None
    if as_json:
        click.echo(json.dumps({"mistakes": []}))


@click.group("secrets")
def secrets_group() -> None:
    """Look after the machine's secrets."""


@secrets_group.command("ensure")
@json_option
def secrets_ensure(as_json: bool) -> None:
    """Make missing secrets under /etc/labstead/secrets; prints the names of files written.

    Example: labstead secrets ensure
    """
    from labstead import secrets

    need_root()
    written = secrets.ensure()
    click.echo(json.dumps(written) if as_json else "".join(f"{name}\n" for name in written), nl=as_json)


@click.group("seccomp")
def seccomp_group() -> None:
    """Look after what sessions may ask of the kernel."""


@seccomp_group.command("ensure")
@json_option
def seccomp_ensure(as_json: bool) -> None:
    """Write /etc/labstead/seccomp.json for this machine's Docker, after a trial; prints its path if it has changed.

    Example: labstead seccomp ensure
    """
    from labstead import seccomp

    need_root()
    changed = seccomp.ensure(settings.load_sessions().images[0].reference)
    if as_json:
        click.echo(json.dumps({"path": str(seccomp.PROFILE), "changed": changed}))
    elif changed:
        click.echo(seccomp.PROFILE)


@click.command("unit-outdated")
@click.argument("unit")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@json_option
def unit_outdated(unit: str, files: Sequence[Path], as_json: bool) -> None:
    """Print UNIT if it runs but started before one of FILES changed, or if it failed; else nothing.

    Example: labstead unit-outdated labstead-hub.service /etc/labstead/hub.yml
    """
    from labstead import units

    outdated = units.is_outdated(unit, files)
    if as_json:
        click.echo(json.dumps({"unit": unit, "outdated": outdated}))
    elif outdated:
        click.echo(unit)


# --- what systemd starts


@click.group("accounts", hidden=True)
def accounts_group() -> None:
    """The accounts service."""


@accounts_group.command("serve")
def accounts_serve() -> None:
    """Answer at the socket that systemd passes (labstead-accounts.service)."""
    from labstead.accounts import server

    server.main()


@click.group("gate", hidden=True)
def gate_group() -> None:
    """The gate to Docker."""


@gate_group.command("serve")
def gate_serve() -> None:
    """Answer at the socket that systemd passes (labstead-gate.service)."""
    from labstead import gate

    gate.main()


@click.group("relay", hidden=True)
def relay_group() -> None:
    """The relay to Slurm."""


@relay_group.command("serve")
def relay_serve() -> None:
    """Answer at the socket that systemd passes (labstead-relay.service)."""
    from labstead.relay import server

    server.main()


@click.group("hub", hidden=True)
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


# --- for people


@click.command("selfcheck")
@click.option("--url", help="Public address of the hub; default: from hub.yml.")
@click.option(
    "--ca", type=click.Path(exists=True, path_type=Path), help="Certificates to trust; default: what the hub uses."
)
@click.option("--compute", is_flag=True, help="Also start a Dask worker in Slurm, and have it compute.")
@json_option
def selfcheck(url: str | None, ca: Path | None, compute: bool, as_json: bool) -> None:
    """Make a whole session through the public address and remove it; exit code 1 if a step fails.

    Where sessions have Slurm, the session asks it for its partitions. A Dask worker waits for a free node for as long
    as five minutes; on compute nodes elsewhere the account of the self-check is not known, and it cannot start there.

    \b
    Examples:
      labstead selfcheck --json
      labstead selfcheck --compute
    """
    from labstead import selfcheck as check

    need_root()
    sessions = settings.load_sessions()
    if compute and sessions.compute is None:
        raise BadInput("labstead: --compute: sessions have no Slurm here; see slurm_mode")
    steps = check.run(url or settings.load_hub().url, ca or check.authority(), sessions, worker=compute)
    if as_json:
        click.echo(json.dumps([{"step": step.name, "seconds": step.seconds} for step in steps], indent=2))
        return
    for step in steps:
        click.echo(f"{step.name:16} {step.seconds:8.2f} s")


@click.command("completion")
@click.argument("shell", type=click.Choice(sorted(_SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands, options and names by Tab.

    site.yml installs it for bash.

    Example: source <(labstead completion bash)
    """
    main = ctx.find_root().command
    click.echo(_SHELLS[shell](main, {}, "labstead", "_LABSTEAD_COMPLETE").source())

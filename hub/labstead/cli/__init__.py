"""The `labstead` command.

The one rule: commands print what programs and people can read, and exit with 0 for done, 1 for failed, 2 for bad input.
Rooms: `machine` (settings, secrets, services), `user` and `newcomers`, `group`, `quota`, `disk`, `compute` (Slurm),
`people` (what was declared, what the day asks for), `base` (what they have in common).
"""

import click

from labstead import __version__
from labstead.cli import compute, disk, group, machine, people, quota, user
from labstead.cli import newcomers as newcomers  # its commands join those of `user`
from labstead.cli.base import Command


@click.group(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="labstead")
def main() -> None:
    """Run and look after a labstead hub."""


for command in (
    machine.config,
    machine.secrets_group,
    machine.seccomp_group,
    machine.unit_outdated,
    machine.accounts_group,
    machine.gate_group,
    machine.relay_group,
    machine.hub_group,
    machine.selfcheck,
    machine.completion,
    user.user,
    group.group,
    quota.quota,
    disk.disk,
    compute.compute_group,
    people.apply,
    people.tidy,
    people.cull,
    people.admin_group,
):
    main.add_command(command)

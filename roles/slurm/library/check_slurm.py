#!/usr/bin/python
"""Look at Slurm on the machine and at what jobs would have, and list what stands in the way.

The rule: it reads and never writes, and it reports every finding at once, each with what to do.
It runs on the target with nothing but Python's standard library, bash, util-linux and Slurm's own commands.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: check_slurm
short_description: List what stands in the way of jobs in Slurm
description:
  - Reads files of Slurm's and asks sinfo; changes nothing, so it runs in check mode as well.
author:
  - labstead contributors
options:
  mode:
    description: The setting slurm_mode.
    type: str
    required: true
  cpus:
    description: The setting slurm_cpus.
    type: int
    required: true
  memory:
    description: The setting slurm_memory.
    type: str
    required: true
  worker_cores:
    description: The setting slurm_worker_cores.
    type: int
    required: true
  worker_memory:
    description: The setting slurm_worker_memory.
    type: str
    required: true
  partition:
    description: The setting slurm_partition.
    type: str
    required: true
  commands:
    description: The setting slurm_commands.
    type: str
    required: true
  conf:
    description: The setting slurm_conf.
    type: str
    required: true
  runtime:
    description: The setting slurm_runtime.
    type: str
    required: true
  images_root:
    description: The setting slurm_images_root.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Machine | Look at Slurm, and at what jobs would have
  check_slurm:
    mode: embedded
    cpus: 0
    memory: ""
    worker_cores: 1
    worker_memory: 2G
    partition: ""
    commands: ""
    conf: ""
    runtime: charliecloud
    images_root: /var/lib/labstead/compute
"""

RETURN = r"""
findings:
  description: One line for each thing to put right, "what, what is wrong; what to do".
  type: list
  elements: str
  returned: always
machine:
  description: Facts that the role uses.
  type: dict
  returned: always
  contains:
    hostname:
      description: Name of the machine as Slurm takes it, without domain.
      type: str
    cpus:
      description: Processor cores that all jobs together may take.
      type: int
    memory_mb:
      description: Memory in MiB that all jobs together may take.
      type: int
    ours:
      description: Whether labstead has written slurm.conf.
      type: bool
    installed:
      description: Whether Slurm's daemons are installed as Debian has them.
      type: bool
    guard:
      description: Whether what labstead adds to Slurm's units is there.
      type: bool
    relay:
      description: Whether the relay is set up.
      type: bool
    commands:
      description: Folder of Slurm's commands, empty for none.
      type: str
    conf:
      description: The slurm.conf that they have to be told, empty for none.
      type: str
"""

CONF = Path("/etc/slurm/slurm.conf")
OTHER_CONFS = (Path("/etc/slurm-llnl/slurm.conf"), Path("/run/slurm/conf/slurm.conf"))
"""Of an older Debian, and what slurmd keeps where its configuration comes from another machine."""
SIGN = "# Written by labstead"
PLACES = ("/usr/bin", "/usr/local/bin", "/opt/slurm/bin")
NEEDED = ("sbatch", "scancel", "sinfo", "squeue")
UNITS = ("slurmctld.service", "slurmd.service")
GUARD = Path("/etc/systemd/system/labstead-slurm-guard.service")
RELAY = Path("/etc/systemd/system/labstead-relay.socket")
FIRST_DISK_GB = 4
"""Free space in GB that images need where there are none yet."""
NOBODY = 65534


def run(words: Sequence[str], environment: Mapping[str, str], user: int = 0) -> tuple[int, str, str]:
    """Run a command for half a minute at most; exit code 127 where it cannot be run."""
    try:
        done = subprocess.run(
            words,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=30,
            cwd="/",
            env={"HOME": "/root", "LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
            user=user,
            group=user,
            extra_groups=[],
        )
    except subprocess.TimeoutExpired:
        return 124, "", "no answer within 30 seconds"
    except OSError as error:
        return 127, "", error.strerror or str(error)
    return done.returncode, done.stdout, done.stderr


# --- sizes ------------------------------------------------------------------------------------------------------


def mebibytes(size: str) -> int:
    """Read a size with K, M, G or T as whole MiB; the settings have been checked before."""
    number, unit = re.fullmatch(r"([0-9]+)([KMGT]?)", size).groups()
    return int(number) * 1024 ** " KMGT".index(unit or " ") // 2**20


def share(cpus: int, memory: str, cores: int, total_mb: int) -> tuple[int, int]:
    """Say how many cores and MiB all jobs may take: half and 40 % where nothing is said."""
    return cpus or max(1, cores // 2), mebibytes(memory) if memory else total_mb * 4 // 10


def share_findings(wanted: tuple[int, int], there: tuple[int, int], worker: tuple[int, int]) -> list[str]:
    """Refuse more than the machine has, and a Dask worker that would wait for ever.

    :param wanted: cores and MiB of all jobs; `there` of the machine; `worker` of a Dask worker that does not say
    """
    findings = []
    if wanted[0] > there[0]:
        findings.append(f"slurm_cpus: {wanted[0]} are more than this machine has, {there[0]}; write that at most")
    if wanted[1] > there[1]:
        findings.append(
            f"slurm_memory: {wanted[1]} MiB are more than this machine has, {there[1]}; write less, and leave some"
            " for hub and sessions"
        )
    if worker[0] > wanted[0]:
        findings.append(
            f"slurm_worker_cores: a worker of {worker[0]} would wait for ever, as jobs have {wanted[0]} here;"
            " lower it or raise slurm_cpus"
        )
    if worker[1] > wanted[1]:
        findings.append(
            f"slurm_worker_memory: a worker of {worker[1]} MiB would wait for ever, as jobs have {wanted[1]} here;"
            " lower it or raise slurm_memory"
        )
    return findings


# --- Slurm ------------------------------------------------------------------------------------------------------


def is_ours(conf: Path) -> bool:
    """Tell whether labstead has written a slurm.conf."""
    try:
        return conf.read_text(encoding="utf-8", errors="replace").startswith(SIGN)
    except OSError:
        return False


def other_findings() -> list[str]:
    """Refuse to set up Slurm where there is one already."""
    advice = "to use that Slurm, set slurm_mode: existing; else remove it"
    findings = [f"slurm: {CONF} is not labstead's; {advice}"] if CONF.exists() and not is_ours(CONF) else []
    findings += [f"slurm: {path} is there; {advice}" for path in OTHER_CONFS if path.exists() and not is_ours(CONF)]
    findings += [
        f"slurm: {folder}/sinfo is there; {advice}" for folder in PLACES[1:] if os.access(f"{folder}/sinfo", os.X_OK)
    ]
    return findings


def login_shell() -> tuple[str, str]:
    """Ask root's login shell for the folder of sinfo and for SLURM_CONF; empty where it knows none."""
    text = run(["bash", "--login", "-c", 'printf "\\n%s\\n%s\\n" "$(command -v sinfo)" "$SLURM_CONF"'], {})[1]
    command, conf = [*text.splitlines()[-2:], "", ""][:2]
    return (str(Path(command).parent) if command.startswith("/") else ""), conf if conf.startswith("/") else ""


def find(commands: str, conf: str) -> tuple[str, str]:
    """Find the folder of the site's commands and the slurm.conf that they have to be told; empty for none."""
    if commands and conf:
        return commands, conf
    from_shell, conf_of_shell = login_shell()
    places = [commands] if commands else [*PLACES, *([from_shell] if from_shell else [])]
    folder = next((place for place in places if os.access(f"{place}/sinfo", os.X_OK)), "")
    return commands or folder, conf or conf_of_shell


def partition_findings(text: str, wanted: str) -> list[str]:
    """Refuse a partition that is not among those of `sinfo --format=%P`, where the default has a star."""
    names = list(dict.fromkeys(text.split()))
    shown = ", ".join(name.rstrip("*") for name in names) or "none"
    if wanted and wanted not in [name.rstrip("*") for name in names]:
        return [f"slurm_partition: there is no partition {wanted}; choose one of {shown}"]
    if not wanted and not any(name.endswith("*") for name in names):
        return [f"slurm_partition: this Slurm has no default partition; name one of {shown}"]
    return []


def last_line(text: str) -> str:
    """Give the last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "without a word")


def existing_findings(commands: str, conf: str, partition: str) -> list[str]:
    """Refuse a site's Slurm that cannot be used from this machine."""
    if GUARD.exists():
        return [
            "slurm: this machine has labstead's own; set slurm_mode: none and run site.yml before you take the site's"
        ]
    if is_ours(CONF) and not conf and commands == "/usr/bin":
        return [f"slurm: {CONF} is labstead's own; set slurm_mode: embedded, or remove that Slurm"]
    if not commands:
        return [
            f"slurm: no sinfo in {', '.join(PLACES)} or in the PATH of root's login shell; install the commands of the"
            " site's Slurm here, or set slurm_commands"
        ]
    missing = [name for name in NEEDED if not os.access(f"{commands}/{name}", os.X_OK)]
    if missing:
        return [f"slurm: no {', '.join(missing)} in {commands}; install what is missing, or set slurm_commands"]
    if conf and not Path(conf).is_file():
        return [f"slurm_conf: {conf} is not a file on this machine; mend it"]
    told = {"SLURM_CONF": conf} if conf else {}
    code, text, errors = run([f"{commands}/sinfo", "--noheader", "--format=%P"], told)
    if code:
        return [f"slurm: {commands}/sinfo fails here: {last_line(errors)}; make it work for root first"]
    return partition_findings(text, partition)


# --- what runs jobs in images -----------------------------------------------------------------------------------


def runtime_findings(runtime: str) -> list[str]:
    """Refuse a machine on which nobody's job could run in an image."""
    if runtime == "apptainer":
        found = shutil.which("apptainer", path="/usr/local/bin:/usr/bin:/bin")
        return [] if found else ["slurm_runtime: apptainer is not on this machine; install it, or take charliecloud"]
    code, _, errors = run(["unshare", "--user", "--map-root-user", "true"], {}, user=NOBODY)
    if code:
        return [
            f"kernel: people cannot make user namespaces ({last_line(errors)}), which charliecloud needs; allow them"
            " (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)"
        ]
    return []


def disk_findings(images_root: str) -> list[str]:
    """Refuse too little space for the first images."""
    folder = Path(images_root)
    if any(folder.glob("images/*.json")):
        return []
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < FIRST_DISK_GB:
        return [
            f"disk: {free:.1f} GB free below {folder}, {FIRST_DISK_GB} GB are needed for the images of jobs; make room"
            " or set slurm_images_root"
        ]
    return []


def main() -> None:
    """Run as an Ansible module."""
    texts = ("mode", "memory", "worker_memory", "partition", "commands", "conf", "runtime", "images_root")
    arguments = {name: {"type": "str", "required": True} for name in texts}
    arguments |= {name: {"type": "int", "required": True} for name in ("cpus", "worker_cores")}
    module = AnsibleModule(argument_spec=arguments, supports_check_mode=True)
    wanted = module.params
    there = (os.cpu_count() or 1, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20)
    jobs = share(wanted["cpus"], wanted["memory"], *there)
    commands = conf = ""
    findings: list[str] = []
    if wanted["mode"] == "embedded":
        worker = (wanted["worker_cores"], mebibytes(wanted["worker_memory"]))
        findings += [*other_findings(), *share_findings(jobs, there, worker)]
    elif wanted["mode"] == "existing":
        commands, conf = find(wanted["commands"], wanted["conf"])
        findings += existing_findings(commands, conf, wanted["partition"])
    if wanted["mode"] != "none":
        findings += [*runtime_findings(wanted["runtime"]), *disk_findings(wanted["images_root"])]
    module.exit_json(
        changed=False,
        findings=findings,
        machine={
            "hostname": platform.node().split(".")[0],
            "cpus": jobs[0],
            "memory_mb": jobs[1],
            "ours": is_ours(CONF),
            "installed": all(Path("/usr/lib/systemd/system", unit).exists() for unit in UNITS),
            "guard": GUARD.exists(),
            "relay": RELAY.exists(),
            "commands": commands,
            "conf": conf,
        },
    )


if __name__ == "__main__":
    main()

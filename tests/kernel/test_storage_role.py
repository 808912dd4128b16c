"""site.yml makes an empty device a disk whose limits the kernel holds."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from support import provision
from support.guest import OPTIONS
from support.lab import Lab

from .conftest import Bench

DEVICE = "/dev/ubdc"
ROOTS = {kind: f"/srv/site/{kind}" for kind in ("home", "group", "scratch")}
PACKAGES = {"xfs": "xfsprogs", "ext4": "e2fsprogs"}

# The guest reaches no mirror: what the host's apt has fetched is installed from the host's own cache.
_INSTALL = """
mkdir -p /mnt/packages
mount -t hostfs -o "$1" none /mnt/packages
shift
dpkg --install --skip-same-version $(for name; do ls /mnt/packages/"$name"_*.deb; done)
umount /mnt/packages
"""


def _install(bench: Bench, lab: Lab, package: str) -> None:
    apt = ("apt-get", "install", "--yes", "--no-install-recommends")
    planned = lab.machine.out(*apt, "--simulate", package)
    names = re.findall(r"^Inst (\S+)", planned, flags=re.MULTILINE)
    if names:
        lab.machine.run(*apt, "--download-only", package, timeout=300)
        archives = Path(lab.machine.info()["root"], "var/cache/apt/archives")
        bench.guest.sh(_INSTALL, str(archives), *names)


def _inventory(bench: Bench, path: Path) -> Path:
    """Describe the guest as a site that has an empty disk; Ansible uses the connection that is open."""
    variables = {
        "ansible_host": bench.guest.appliance.host,
        "ansible_user": "root",
        "ansible_ssh_common_args": " ".join(word for word in bench.guest.ssh if word.startswith("-o")) + " -F none",
        "proxy_hostname": bench.guest.appliance.host,
        "hub_admins": [provision.ADMIN],
        "preflight_minimum_memory_gb": 1,
        "storage_disks": [{"device": DEVICE, "filesystem": bench.kind, "holds": [*ROOTS]}],
        **{f"storage_{kind}_root": root for kind, root in ROOTS.items()},
        **{f"storage_{kind}_quota": "20M" for kind in ROOTS},
        **{f"storage_{kind}_files": 100 for kind in ROOTS},
    }
    path.write_text(yaml.safe_dump({"all": {"hosts": {"guest": variables}}}), encoding="utf-8")
    return path


@pytest.fixture
def disk(bench: Bench, lab: Lab) -> Iterator[str]:
    """Give an empty device, and take away what was made of it."""
    _install(bench, lab, PACKAGES[bench.kind])
    # As site.yml itself advises; without signatures alone, the device would still hold data.
    bench.guest.run("blkdiscard", "--force", "--zeroout", DEVICE)
    point = f"/srv/labstead/{Path(DEVICE).name}"
    try:
        yield point
    finally:
        bench.guest.run("umount", *ROOTS.values(), point, check=False)
        bench.guest.run("sed", "--in-place", "/srv.site/d; /srv.labstead/d", "/etc/fstab")


# On one kind: a run of Ansible takes longer in here than all else, and the kinds differ by two words of a table.
@pytest.mark.parametrize("bench", ["xfs"], indirect=True)
def test_an_empty_device_becomes_a_disk_with_limits(bench: Bench, disk: str, tmp_path: Path) -> None:
    guest = bench.guest
    done = provision.run(_inventory(bench, tmp_path / "site.yml"), tmp_path / "site.log", "--tags", "storage")
    assert done.code == 0, done.end

    options = guest.out("findmnt", "--noheadings", "--output", "FSTYPE,OPTIONS", disk)
    assert options.split()[0] == bench.kind
    # As the kernel calls uquota and pquota.
    assert {"usrquota", "prjquota"} <= set(options.split()[1].split(",")), OPTIONS[bench.kind]
    uuid = guest.out("blkid", "--match-tag", "UUID", "--output", "value", DEVICE)
    assert f"UUID={uuid} {disk} {bench.kind} " in guest.out("cat", "/etc/fstab")

    # As after a boot, with nothing but /etc/fstab.
    guest.run("umount", *ROOTS.values(), disk)
    guest.run("mount", "--all")
    guest.run("labstead", "disk", "prove", *ROOTS.values())
    assert guest.out("sh", "-c", "ls -A /srv/site/*/.labstead-proof 2>/dev/null; true") == ""

    # What is on it now is never formatted again, whatever has been forgotten about it.
    guest.run("touch", f"{ROOTS['home']}/thesis")
    guest.run("umount", *ROOTS.values(), disk)
    guest.run("sed", "--in-place", "/srv.site/d; /srv.labstead/d", "/etc/fstab")
    done = provision.run(_inventory(bench, tmp_path / "site.yml"), tmp_path / "again.log", "--tags", "storage")
    assert done.code == 0, done.end
    guest.run("test", "-f", f"{ROOTS['home']}/thesis")

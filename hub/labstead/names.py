"""Which names people may have.

The one rule: a hub name is a Unix name, and a name that means something to the machine is nobody's. The check
here is of the text alone; whether a name is taken is known to the accounts service.
"""

import re
from collections.abc import Collection

#: Linux account tools store at most 32 bytes of a user's name (useradd(8), "CAVEATS").
MAX_LENGTH = 32

_VALID = re.compile(r"[a-z][a-z0-9_-]*")

CANARY = "labstead-canary"
"""Account of the self-check: made, used and removed by it, and reserved for it."""

_RESERVED_TEXT = """
    root toor daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody
    nogroup messagebus sshd polkitd tss uuidd tcpdump avahi colord dnsmasq ntp ntpsec chrony statd rpc rpcuser
    nslcd sssd adm admin administrator wheel sudo staff users operator tty disk kmem dialout fax voice cdrom
    floppy tape audio dip src shadow utmp video sasl plugdev input sgx kvm render crontab netdev docker lxd
    libvirt ssl-cert slurm munge postgres mysql redis nginx apache httpd ldap openldap kerberos ftp git hub
    jupyter jupyterhub labstead jovyan debian ubuntu vagrant test guest anonymous system shared groups data
    scratch home all everyone none null self me api login logout signup static
"""

#: Names that a package, a distribution or an administrator would give a meaning to. Names of Debian's
#: base-passwd are here too, so that a minimal host refuses what a full one would. `admin` and `wheel` carry
#: sudo rights on some systems through a group of the same name, which a private group would become.
RESERVED = frozenset(_RESERVED_TEXT.split())

#: Account names that packages invent: systemd-network, _apt, Debian-exim, …
_RESERVED_PREFIXES = ("systemd-", "labstead-", "debian-")


def is_unix_name(name: str) -> bool:
    """Tell whether the text could be a person's or a group's name, reserved or not."""
    return len(name) <= MAX_LENGTH and _VALID.fullmatch(name) is not None


def problem_with_name(name: str, reserved: Collection[str] = ()) -> str | None:
    """Say why a person may not have this name, or None where the text is good.

    :param name: as typed
    :param reserved: names that the site reserves beside the built-in ones
    :return: one sentence for the person who typed it
    """
    if not name:
        return "Please choose a username."
    if len(name) > MAX_LENGTH:
        return f"A username has at most {MAX_LENGTH} characters; this one has {len(name)}."
    if name != name.lower():
        return "A username has small letters only."
    if not _VALID.fullmatch(name):
        return "A username starts with a letter a-z and goes on with letters a-z, digits, '-' or '_'."
    if name in RESERVED or name in reserved or name.startswith(_RESERVED_PREFIXES):
        return f"The username {name} is reserved; please choose another one."
    return None

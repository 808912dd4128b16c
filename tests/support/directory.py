"""An institute's directory on a throwaway host: slapd, and SSSD through which the host knows its people.

The rule: it is set up as a sysadmin would, with Debian's packages and TLS; nothing in it knows of labstead.
"""

from dataclasses import dataclass

from support.authority import Authority
from support.machine import Machine, wait_for

BASE = "dc=institute,dc=test"
_ROOT = ("-Y", "EXTERNAL", "-Q", "-H", "ldapi:///")

STAFF = 42000
"""Primary group of the institute's people, `staff-ldap`, which the directory always has."""

_DONE = "/etc/ldap/lt-done"

INSTALL = """
    debconf-set-selections <<'END'
slapd slapd/domain string institute.test
slapd shared/organization string Institute of Tests
slapd slapd/no_configuration boolean false
END
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet=2
    apt-get install --quiet=2 --no-install-recommends \\
        slapd ldap-utils sssd-ldap sssd-tools libnss-sss libpam-sss >/tmp/directory.log 2>&1 ||
        { tail -n 30 /tmp/directory.log >&2; exit 1; }
"""

UNITS = "".join(f"dn: ou={unit},{BASE}\nobjectClass: organizationalUnit\n\n" for unit in ("people", "groups"))
CONFIG = """
dn: cn=config
changetype: modify
replace: olcTLSCertificateFile
olcTLSCertificateFile: /etc/ldap/lt-server.crt
-
replace: olcTLSCertificateKeyFile
olcTLSCertificateKeyFile: /etc/ldap/lt-server.key

dn: olcDatabase={1}mdb,cn=config
changetype: modify
add: olcAccess
olcAccess: {0}to * by dn.exact=gidNumber=0+uidNumber=0,cn=peercred,cn=external,cn=auth manage by * break
"""

SSSD = """
[sssd]
services = nss, pam
domains = institute

[domain/institute]
id_provider = ldap
auth_provider = ldap
access_provider = permit
ldap_uri = ldaps://{address}
ldap_search_base = {base}
ldap_tls_cacert = /etc/ldap/lt-authority.crt
ldap_tls_reqcert = demand
"""


@dataclass(frozen=True)
class Entry:
    """Somebody in the directory.

    :param gid: of the primary group
    """

    name: str
    uid: int
    gid: int
    password: str
    full_name: str = "Somebody of the Institute"
    login_shell: str = "/bin/bash"

    @property
    def dn(self) -> str:
        """Give the distinguished name."""
        return f"uid={self.name},ou=people,{BASE}"

    @property
    def ldif(self) -> str:
        """Describe it as LDIF."""
        return f"""dn: {self.dn}
objectClass: inetOrgPerson
objectClass: posixAccount
uid: {self.name}
cn: {self.full_name}
sn: {self.full_name.split()[-1]}
uidNumber: {self.uid}
gidNumber: {self.gid}
homeDirectory: /home/{self.name}
loginShell: {self.login_shell}
userPassword: {self.password}
"""


class Directory:
    """The directory of one host.

    :param machine: the host that serves it and that asks it
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def set_up(self, authority: Authority) -> None:
        """Install slapd and SSSD, with a directory of nobody yet; one that an earlier run left is emptied."""
        known = self._machine.run("test", "-e", _DONE, check=False).returncode == 0
        if not known:
            self._machine.sh(INSTALL, timeout=600)
        self._write_certificates(authority)
        if not known:
            self._ldap("ldapmodify", CONFIG)
            self._machine.sh("sed -i 's|^SLAPD_SERVICES=.*|SLAPD_SERVICES=\"ldapi:/// ldaps:///\"|' /etc/default/slapd")
        self._machine.run("systemctl", "restart", "slapd")
        if known:
            for unit in ("people", "groups"):
                self._machine.run("ldapdelete", *_ROOT, "-r", f"ou={unit},{BASE}")
        self._ldap("ldapadd", UNITS)
        self._machine.sh("touch $1; systemctl enable --quiet sssd; systemctl restart sssd", _DONE)
        self.add_group("staff-ldap", STAFF)

    def _write_certificates(self, authority: Authority) -> None:
        address = self._machine.info()["address"]
        pair = authority.pair(address)
        for path, text, mode, group in (
            ("/etc/ldap/lt-authority.crt", authority.certificate, "0644", "root"),
            ("/etc/ldap/lt-server.crt", pair.certificate, "0644", "root"),
            ("/etc/ldap/lt-server.key", pair.key, "0640", "openldap"),
            ("/etc/sssd/sssd.conf", SSSD.format(address=address, base=BASE), "0600", "root"),
        ):
            self._machine.run("install", "-m", mode, "-g", group, "/dev/stdin", path, stdin=text)

    def _ldap(self, program: str, ldif: str, *words: str) -> str:
        return self._machine.run(program, *_ROOT, *words, stdin=ldif).stdout

    def forget(self) -> None:
        """Let SSSD ask anew, as it does by itself after some minutes."""
        self._machine.run("sss_cache", "--everything")

    def add(self, *entries: Entry) -> None:
        """Add people."""
        self._ldap("ldapadd", "\n".join(entry.ldif for entry in entries))
        self.forget()

    def remove(self, name: str) -> None:
        """Remove somebody, and do not forget that they were in groups."""
        self._machine.run("ldapdelete", *_ROOT, f"uid={name},ou=people,{BASE}")
        self.forget()

    def set_uid(self, name: str, uid: int) -> None:
        """Give somebody another uid, as a careless administrator of the directory might."""
        ldif = f"dn: uid={name},ou=people,{BASE}\nchangetype: modify\nreplace: uidNumber\nuidNumber: {uid}\n"
        self._ldap("ldapmodify", ldif)
        self.forget()

    def add_group(self, name: str, gid: int, *members: str) -> None:
        """Add a group with people of the directory or of the host."""
        ldif = f"dn: cn={name},ou=groups,{BASE}\nobjectClass: posixGroup\ncn: {name}\ngidNumber: {gid}\n"
        self._ldap("ldapadd", ldif + "".join(f"memberUid: {member}\n" for member in members))
        self.forget()

    def ask(self, filters: str, attribute: str) -> list[str]:
        """Ask slapd itself, past SSSD: the values of one attribute of all entries that fit."""
        words = (*_ROOT, "-LLL", "-o", "ldif-wrap=no", "-b", BASE, filters, attribute)
        lines = self._machine.run("ldapsearch", *words).stdout.splitlines()
        return sorted(line.split(": ", 1)[1] for line in lines if line.startswith(f"{attribute}: "))

    def wait_for(self, name: str) -> list[str]:
        """Wait until the host knows somebody, and give their line of passwd."""
        found = wait_for(
            f"{name} on {self._machine.name}",
            lambda: self._machine.run("getent", "passwd", name, check=False).stdout.strip(),
            30,
        )
        return found.split(":")

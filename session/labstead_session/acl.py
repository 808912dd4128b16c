"""POSIX access control lists, acl(5), read and written as the kernel keeps them.

The one rule: writing gives nobody anything that the new list does not say. Where a mask kept rights back, the entries
are cut down to what they were worth before the mask is raised for a new one.

Layout of the extended attribute: include/uapi/linux/posix_acl_xattr.h in Linux. It is the same for `setfacl`, which
cannot be asked to leave symbolic links and races alone.
"""

import errno
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

READ, WRITE, SEARCH = 4, 2, 1
"""Bits of a right; the last one means execute for a file."""

_ACCESS = "system.posix_acl_access"
_DEFAULT = "system.posix_acl_default"
_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_OWNER, _USER, _GROUP_OF_FILE, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NOBODY = 0xFFFFFFFF


def _letters(rights: int) -> str:
    return "".join(letter if rights & bit else "-" for letter, bit in (("r", READ), ("w", WRITE), ("x", SEARCH)))


def _rights(letters: str) -> int:
    return sum(bit for letter, bit in zip(letters, (READ, WRITE, SEARCH), strict=True) if letter != "-")


@dataclass(frozen=True)
class Acl:
    """One list. Rights are those of the entries as written; `settled` gives what they are worth."""

    owner: int
    group: int
    other: int
    users: dict[int, int] = field(default_factory=dict)
    """Rights by uid."""
    groups: dict[int, int] = field(default_factory=dict)
    """Rights by gid; the file's own group is in `group`."""
    mask: int | None = None
    """The most that `group`, `users` and `groups` are worth."""

    @classmethod
    def of_mode(cls, mode: int) -> "Acl":
        """Give the list that permission bits mean."""
        return cls(mode >> 6 & 7, mode >> 3 & 7, mode & 7)

    def settled(self) -> "Acl":
        """Give a list of equal effect whose mask keeps nothing back, and is there only where it has to be."""
        most = 7 if self.mask is None else self.mask
        users = {uid: rights & most for uid, rights in self.users.items()}
        groups = {gid: rights & most for gid, rights in self.groups.items()}
        group = self.group & most
        mask = None
        if users or groups:
            mask = group
            for rights in (*users.values(), *groups.values()):
                mask |= rights
        return replace(self, group=group, users=users, groups=groups, mask=mask)

    def entries(self) -> Iterator[tuple[int, int, int]]:
        """Give tag, rights and id of each entry, in the kernel's order."""
        yield _OWNER, self.owner, _NOBODY
        yield from ((_USER, rights, uid) for uid, rights in sorted(self.users.items()))
        yield _GROUP_OF_FILE, self.group, _NOBODY
        yield from ((_GROUP, rights, gid) for gid, rights in sorted(self.groups.items()))
        if self.mask is not None:
            yield _MASK, self.mask, _NOBODY
        yield _OTHER, self.other, _NOBODY

    def pack(self) -> bytes:
        """Give the attribute's value."""
        return _VERSION + b"".join(_ENTRY.pack(*entry) for entry in self.entries())

    @classmethod
    def unpack(cls, value: bytes) -> "Acl":
        """Read an attribute's value."""
        if value[:4] != _VERSION:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return cls._of(_ENTRY.iter_unpack(value[4:]))

    def __str__(self) -> str:
        """Give the short text form of acl(5), with numbers for names."""
        names = {_OWNER: "u:", _USER: "u:", _GROUP_OF_FILE: "g:", _GROUP: "g:", _MASK: "m:", _OTHER: "o:"}
        return ",".join(
            f"{names[tag]}{'' if ident == _NOBODY else ident}:{_letters(rights)}"
            for tag, rights, ident in self.entries()
        )

    @classmethod
    def parse(cls, text: str) -> "Acl":
        """Read what `str` gives; :raises ValueError: for anything else."""
        tags = {"u": (_OWNER, _USER), "g": (_GROUP_OF_FILE, _GROUP), "m": (_MASK, _MASK), "o": (_OTHER, _OTHER)}
        entries = []
        for part in text.split(","):
            kind, ident, letters = part.split(":")
            if kind not in tags:
                raise ValueError(text)
            entries.append((tags[kind][bool(ident)], _rights(letters), int(ident) if ident else _NOBODY))
        return cls._of(entries)

    @classmethod
    def _of(cls, entries: "Iterator[tuple[int, int, int]] | list[tuple[int, int, int]]") -> "Acl":
        single = {_OWNER: 0, _GROUP_OF_FILE: 0, _OTHER: 0}
        users: dict[int, int] = {}
        groups: dict[int, int] = {}
        mask = None
        for tag, rights, ident in entries:
            if tag == _USER:
                users[ident] = rights
            elif tag == _GROUP:
                groups[ident] = rights
            elif tag == _MASK:
                mask = rights
            else:
                single[tag] = rights
        return cls(single[_OWNER], single[_GROUP_OF_FILE], single[_OTHER], users, groups, mask)


# --- files, by descriptors that were opened with O_PATH: they never follow a symbolic link


def _path(fd: int) -> str:
    # An O_PATH descriptor has no attributes of its own; this name leads to its file and nowhere else.
    return f"/proc/self/fd/{fd}"


def _get(fd: int, name: str) -> bytes | None:
    try:
        return os.getxattr(_path(fd), name)
    except OSError as error:
        # None set, or a file system that keeps none: then the mode says all.
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise


def access(fd: int) -> Acl:
    """Read who may do what."""
    value = _get(fd, _ACCESS)
    return Acl.of_mode(stat.S_IMODE(os.stat(fd).st_mode)) if value is None else Acl.unpack(value)


def default(fd: int) -> Acl | None:
    """Read what new files in a folder start with; None where it has no such list."""
    value = _get(fd, _DEFAULT)
    return None if value is None else Acl.unpack(value)


def set_access(fd: int, acl: Acl) -> None:
    """Write who may do what; :raises OSError: where the file is not the caller's, or cannot have such a list."""
    os.setxattr(_path(fd), _ACCESS, acl.pack())


def set_default(fd: int, acl: Acl | None) -> None:
    """Write what new files in a folder start with; None takes the list away."""
    if acl is not None:
        os.setxattr(_path(fd), _DEFAULT, acl.pack())
        return
    try:
        os.removexattr(_path(fd), _DEFAULT)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise

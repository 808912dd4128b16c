"""What each day asks for: accounts are closed on their day, later archived and, if the site wants it, deleted; shares
end; limits are looked after and disk use is noted.

The one rule: nothing happens in silence. Each step is a line in the journal and, where a relay is set, in a mail to
the administrators; people are told before it happens. One step that fails keeps none of the others from being done.
"""

import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from email.message import EmailMessage
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from labstead import administration, archive, mail, settings, usage
from labstead.accounts import homes, machine
from labstead.accounts.protocol import Account, Space
from labstead.administration import Site
from labstead.amounts import limit_words, percent
from labstead.errors import LabsteadError
from labstead.identity import FIRST_PERSON
from labstead.peer import HUB_USER
from labstead.settings import Accounts
from labstead_session.notices import NOTICE, WARNING

STATE = Path("/var/lib/labstead/tidy.json")
"""Who has been told of which day."""

_SHARES = Path(".local/share/labstead/shares.json")
_SHARE_SECONDS = 60
_SHARE_MEMORY = 2**30
_MOST_LINES, _LINE_LENGTH = 20, 300
"""How much a person's own files can make this program say of them."""
_DU_SECONDS = 4 * 3600
_SLACK = 5
"""Percent that a space has to become emptier by before its people are told anew that it fills up."""
_MEND_SECONDS = 2 * 3600
_MOST_SECONDS = archive.SECONDS
"""When no archive is begun or gone on with any more; labstead-tidy.service ends an hour later."""


class Line(BaseModel):
    """One thing that was done, or that failed."""

    model_config = ConfigDict(frozen=True)

    words: str
    failed: bool = False


class _State(BaseModel):
    """tidy.json."""

    warned: dict[int, date] = {}
    """Day of expiry of which somebody was told, by uid."""
    full: dict[str, int] = {}
    """How full a space was, in percent, when its people were told last, by its name for people."""


def _read_state(path: Path) -> _State:
    try:
        return _State.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return _State()


def _write(path: Path, text: str, mode: int, group: int = 0) -> None:
    """Put a file in place whole."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    new.rename(path)


def run(check: bool = False) -> Iterator[Line]:
    """Do what the day asks for.

    :param check: only say what would be done
    """
    yield from Tidying(Site(), settings.load_accounts(), date.today(), check).run()


class Tidying:
    """One day's work.

    :param site: the parts of the hub
    :param accounts: accounts.yml
    :param today: the day
    :param check: whether only to say what would be done
    :param state: see `STATE`
    """

    def __init__(
        self, site: Site, accounts: Accounts, today: date, check: bool = False, state: Path | None = None
    ) -> None:
        self._site = site
        self._settings = accounts
        self._today = today
        self._check = check
        self._state_file = state or STATE
        self._state = _read_state(self._state_file)
        self._lines: list[Line] = []
        self._full: list[str] = []
        self._begun: set[int] = set()
        """uids of those whose removal was begun today."""
        self._deadline = time.monotonic() + _MOST_SECONDS

    def run(self) -> Iterator[Line]:
        """Do it, line by line.

        Archives come last: one can take hours, by what somebody put into their home.
        """
        people = [account for account in self._site.accounts.accounts() if account.kind != "canary"]
        steps = [self._close(people), self._warn(people), self._delete()]
        if not self._check:
            steps += [self._end_shares(people), self._mend_folders(), self._follow_limits(), self._measure(people)]
            steps += [self._tell_administrators()]
        # New ones before those that did not come to their end before, as they may not today either.
        steps += [self._archive(people), self._leftovers()]
        if not self._check:
            steps += [self._tell_administrators()]
        for step in steps:
            yield from self._noted(step)

    def _noted(self, lines: Iterable[Line]) -> Iterator[Line]:
        """Give a step's lines; where the step as a whole fails, that is one of them."""
        try:
            for line in lines:
                self._lines.append(line)
                yield line
        except (LabsteadError, OSError, subprocess.SubprocessError) as error:
            self._lines.append(Line(words=_plain(" ".join(str(error).split())), failed=True))
            yield self._lines[-1]

    @contextmanager
    def _failing(self, what: str, lines: list[Line]) -> Iterator[None]:
        """Turn an error into a line."""
        try:
            yield
        except (LabsteadError, OSError, subprocess.SubprocessError) as error:
            lines.append(Line(words=f"{what}: {' '.join(str(error).split())}", failed=True))

    def _mail(self, messages: list[EmailMessage]) -> list[Line]:
        problem = self._site.send(messages)
        return [Line(words=problem, failed=True)] if problem else []

    # --- the life of an account

    def _archive_day(self, account: Account) -> date | None:
        days = self._settings.archive_after_days
        if account.expires is None or days is None or account.kind != "created":
            return None
        return account.expires + timedelta(days=days)

    def _close(self, people: Iterable[Account]) -> Iterator[Line]:
        """Close the accounts whose day has come."""
        for account in people:
            if account.expires is None or account.expires > self._today:
                continue
            lines: list[Line] = []
            with self._failing(account.name, lines):
                if self._check:
                    # The service says `expired` whether that was written down or not; who is closed today is told.
                    if account.expires == self._today:
                        yield Line(words=f"{account.name}: closed, expired on {account.expires}")
                    continue
                closed = self._site.accounts.expire(account.name, account.expires)
                if closed.changed:
                    lines.append(Line(words=f"{account.name}: closed, expired on {account.expires}"))
                    if problem := administration.close(self._site, closed):
                        lines.append(Line(words=problem, failed=True))
                    hub, day = self._site.hub, self._archive_day(account)
                    lines += self._mail(mail.expired(hub, account.name, account.email, day))
            yield from lines

    def _warn(self, people: Iterable[Account]) -> Iterator[Line]:
        """Tell people once of the day on which their account will be closed."""
        soon = self._today + timedelta(days=self._settings.warn_days)
        warned: dict[int, date] = {}
        for account in people:
            if account.expires is None or not self._today < account.expires <= soon:
                continue
            if self._state.warned.get(account.uid) == account.expires:
                warned[account.uid] = account.expires
                continue
            days = (account.expires - self._today).days
            when = "tomorrow" if days == 1 else f"in {days} days"
            yield Line(words=f"{account.name}: closes on {account.expires}, {when}")
            if self._check:
                continue
            problems = self._mail(mail.expires_soon(self._site.hub, account.name, account.email, account.expires))
            yield from problems
            if not problems:
                warned[account.uid] = account.expires
        if not self._check:
            self._keep(self._state.model_copy(update={"warned": warned}))

    def _keep(self, state: _State) -> None:
        """Write down who has been told."""
        if state != self._state:
            self._state = state
            _write(self._state_file, state.model_dump_json() + "\n", 0o600)

    def _is_due(self, account: Account) -> bool:
        day = self._archive_day(account)
        return day is not None and day <= self._today

    def _as_now(self, account: Account) -> Account | None:
        """Give an account as it is by now; None where it is gone, and the name maybe another's."""
        return next((now for now in self._site.accounts.accounts() if now.uid == account.uid), None)

    def _archive(self, people: Iterable[Account]) -> Iterator[Line]:
        """Remove the accounts that have been closed for long enough, their homes into archives."""
        for listed in people:
            if not self._is_due(listed):
                continue
            lines: list[Line] = []
            with self._failing(listed.name, lines):
                # What came before took hours: somebody may have been given another day meanwhile.
                account = self._as_now(listed)
                if account is None or not self._is_due(account):
                    continue
                self._require_removable(account)
                words = f"{account.name}: removed (uid {account.uid}), expired on {account.expires}"
                if self._check:
                    lines.append(Line(words=words))
                else:
                    seconds = self._seconds_left()
                    self._begun.add(account.uid)
                    gone = administration.remove(self._site, account)
                    file = archive.archive_home(self._settings, gone, seconds)
                    lines.append(Line(words=f"{words}; home in {file}" if file else f"{words}; no home was theirs"))
                    if file is not None:
                        lines += self._mail(
                            mail.archived(self._site.hub, account.name, account.email, self._deletion_day())
                        )
            yield from lines

    def _seconds_left(self) -> float:
        """Say how long an archive may take today."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise LabsteadError("not archived, as there was no time left for it today; tomorrow it is tried anew")
        return left

    def _require_removable(self, account: Account) -> None:
        if account.name in self._site.hub.admins:
            raise LabsteadError("it is an administrator's and is not removed; take the name out of hub_admins first")
        if processes := machine.processes_of(account.uid):
            raise LabsteadError(f"it is not removed while processes of theirs run ({processes[0]}, …)")
        homes.require_for_removal(self._settings.home_root, account)
        archive.require_nothing_mounted(self._settings.home_root / account.name)

    def _deletion_day(self) -> date | None:
        days = self._settings.remove_after_days
        return None if days is None else self._today + timedelta(days=days)

    def _leftovers(self) -> Iterator[Line]:
        """Archive what removals that were cut off left."""
        left, folders = (archive.leftovers(root) for root in (self._settings.home_root, self._settings.group_root))
        gone = {account.uid: account for account in self._site.accounts.accounts(retired=True)} if left else {}
        for uid in self._in_turn([uid for uid in left if uid not in self._begun]):
            lines: list[Line] = []
            with self._failing(f"{self._settings.home_root}/.removed-{uid}", lines):
                if uid not in gone:
                    raise LabsteadError("the ledger does not know whose home this was; look at it and delete it")
                words = f"{gone[uid].name}: home that was left of a removal"
                if not self._check:
                    words += f", now in {archive.archive_home(self._settings, gone[uid], self._seconds_left())}"
                lines.append(Line(words=words))
            yield from lines
        for gid in self._in_turn(folders):
            lines = []
            with self._failing(f"{self._settings.group_root}/.removed-{gid}", lines):
                words = f"group {gid}: folder that was left of a removal"
                if not self._check:
                    file = archive.archive_lost_folder(self._settings, gid, seconds=self._seconds_left())
                    words += f", now in {file}"
                lines.append(Line(words=words))
            yield from lines
        for uid in archive.leftovers(self._settings.scratch_root):
            lines = []
            with self._failing(f"{self._settings.scratch_root}/.removed-{uid}", lines):
                if not self._check:
                    archive.delete_scratch(self._settings, uid)
                lines.append(Line(words=f"uid {uid}: scratch that was left of a removal deleted"))
            yield from lines

    def _in_turn(self, numbers: Sequence[int]) -> Sequence[int]:
        """Begin with another one each day, so that one that takes all the time does not do so each day."""
        first = self._today.toordinal() % max(1, len(numbers))
        return (*numbers[first:], *numbers[:first])

    def _delete(self) -> Iterator[Line]:
        """Delete archives that were kept for long enough."""
        for old in archive.archives(self._settings):
            if old.delete_on is None or old.delete_on > self._today:
                continue
            lines: list[Line] = []
            with self._failing(str(old.file), lines):
                if not self._check:
                    old.file.unlink()
                lines.append(
                    Line(words=f"{old.name}: archive {old.file} deleted (uid {old.uid}, of {old.archived_on})")
                )
            yield from lines

    # --- shares and disk use

    def _homes(self, people: Iterable[Account]) -> Iterator[tuple[Account, pwd.struct_passwd]]:
        for account in people:
            entry = machine.user(account.name)
            if entry is not None and entry.pw_uid == account.uid and _is_there(entry.pw_dir):
                yield account, entry

    def _end_shares(self, people: Iterable[Account]) -> Iterator[Line]:
        """Have everybody end the shares whose day has come, as themselves."""
        program = Path(sys.executable).with_name("share")
        for account, entry in self._homes(people):
            if not _is_there(f"{entry.pw_dir}/{_SHARES}"):
                continue
            try:
                said = _as_person(entry, [str(program), "expire"])
            except (LabsteadError, OSError, subprocess.SubprocessError) as error:
                # What somebody did to their own list of shares is no failure of the machine's.
                said = [f"not ended: {error}"]
            for words in said[:_MOST_LINES]:
                yield Line(words=f"shares of {account.name}: {_plain(words)}")

    def _mend_folders(self) -> Iterator[Line]:
        """Give to the groups what came into their folders with rights of its own; see `labstead_session.groups`."""
        for group in self._site.accounts.groups():
            if Path(group.folder).is_dir():
                lines: list[Line] = []
                with self._failing(group.folder, lines):
                    _run_idle([sys.executable, "-I", "-m", "labstead_session.groups", group.folder], _MEND_SECONDS)
                yield from lines

    def _follow_limits(self) -> Iterator[Line]:
        """Have the disks hold all limits, and say where they do not."""
        followed = self._site.accounts.follow_limits(adopt=True)
        for space in followed.spaces:
            yield Line(words=f"{space.words}: {limit_words(space.limit_bytes, space.limit_files)}")
        for words in followed.problems[:_MOST_LINES]:
            yield Line(words=_plain(words), failed=True)
        if (more := len(followed.problems) - _MOST_LINES) > 0:
            yield Line(words=f"and {more} more limits that do not hold; see `labstead apply`", failed=True)

    def _measure(self, people: Sequence[Account]) -> Iterator[Line]:
        """Note what spaces hold; what no file system counts is measured."""
        lines: list[Line] = []
        samples, spaces = [], self._site.accounts.spaces()
        for space in spaces:
            used = space.used_bytes
            if used is None and _is_there(space.path):
                with self._failing(f"disk use of {space.path}", lines):
                    used = _disk_use(space.path)
            if used is not None:
                samples.append(
                    usage.Sample(
                        day=self._today,
                        kind=space.kind,
                        name=space.name,
                        bytes=used,
                        files=space.used_files,
                        limit_bytes=space.limit_bytes,
                        limit_files=space.limit_files,
                    )
                )
        with self._failing(str(usage.FILE), lines):
            usage.add(samples, pwd.getpwnam(HUB_USER).pw_gid)
            usage.FILE.with_suffix(".json").unlink(missing_ok=True)  # of an earlier release
        yield from lines
        yield from self._tell_owners(spaces, people)

    def _tell_owners(self, spaces: Sequence[Space], people: Sequence[Account]) -> Iterator[Line]:
        """Tell people once that their spaces fill up, and managers of groups' folders."""
        addresses = {account.name: account.email for account in people}
        managers = {group.name: group.managers for group in self._site.accounts.groups()}
        told: dict[str, int] = {}
        for space in spaces:
            full = _fullness(space)
            before = self._state.full.get(space.words, 0)
            level = max((level for level in (NOTICE, WARNING) if full >= level), default=0)
            if level > before:
                line = Line(
                    words=f"{space.words}: {full}% full, of {limit_words(space.limit_bytes, space.limit_files)}"
                )
                yield line
                names = managers.get(space.name, ()) if space.kind == "group" else (space.name,)
                messages = [
                    message
                    for name in names
                    for message in mail.fills_up(self._site.hub, addresses.get(name, ""), space.words, space.path, full)
                ]
                problems = self._mail(messages)
                yield from problems
                level = before if problems else level
            elif full > before - _SLACK:
                level = before  # a little less than it was: what grows again at once is not told again
            if level:
                told[space.words] = level
        self._full = [f"{space.words}: {full}% full" for space in spaces if (full := _fullness(space)) >= WARNING]
        self._keep(self._state.model_copy(update={"full": told}))

    def _tell_administrators(self) -> Iterator[Line]:
        if self._lines:
            words = ["What was done today:", "\n".join(line.words for line in self._lines)]
            words += ["Full, or nearly so:", "\n".join(self._full)] if self._full else []
            problems = self._mail(mail.to_admins(self._site.hub, "accounts, archives and shares", words))
            yield from problems
            if problems:
                return  # what was not sent goes with the next one
        # This comes before the archives and after them; each line is told once.
        self._lines, self._full = [], []


def _fullness(space: Space) -> int:
    """Say how full a space is, in percent of bytes or files; 0 where it has no limit."""
    parts = (percent(space.used_bytes, space.limit_bytes), percent(space.used_files, space.limit_files))
    return max(part or 0 for part in parts)


def _is_there(path: str) -> bool:
    """Tell whether root sees a file; names too long, homes that shut out root and the like are nobody's mistake."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises what it does not know


def _plain(words: str) -> str:
    """Give text that holds names which somebody chose as one short line."""
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:_LINE_LENGTH]


def _as_person(entry: pwd.struct_passwd, command: list[str]) -> list[str]:
    """Run a command as somebody, for a bounded time, and give the lines that it prints."""
    groups = [gid for gid in os.getgrouplist(entry.pw_name, entry.pw_gid) if gid >= FIRST_PERSON]
    done = subprocess.run(
        # What they put in the place of their list must not take the machine's memory.
        ["prlimit", f"--as={_SHARE_MEMORY}", "--", *command],
        user=entry.pw_uid,
        group=entry.pw_gid,
        extra_groups=groups,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_SHARE_SECONDS,
        check=False,
        cwd="/",
        umask=0o077,
        start_new_session=True,
        env={
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": entry.pw_dir,
            "USER": entry.pw_name,
            "LOGNAME": entry.pw_name,
        },
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise LabsteadError(words[-1])
    return [line for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]


def _disk_use(folder: str) -> int:
    """Measure what a folder takes up on its disk, in bytes."""
    command = ["du", "--summarize", "--one-file-system", "--block-size=1", "--", folder]
    # Files that vanish meanwhile make du complain, but not miscount.
    number = _run_idle(command, _DU_SECONDS, may_fail=True).split(maxsplit=1)
    if not number:
        raise LabsteadError(f"du could not measure {folder}")
    return int(number[0])


def _run_idle(command: list[str], seconds: int, may_fail: bool = False) -> bytes:
    """Run a command without getting in anybody's way, and give what it prints."""
    done = subprocess.run(
        ["nice", "-n19", "ionice", "-c3", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds,
        check=False,
        cwd="/",
    )
    if done.returncode and not may_fail:
        words = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise LabsteadError(words[-1])
    return done.stdout

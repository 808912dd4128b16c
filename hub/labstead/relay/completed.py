"""sacct where Slurm keeps no database: what has ended from the file of jobcomp/filetxt, the rest from squeue.

The rows are of jobs as a whole, as `sacct -X` shows them: the file knows nothing of steps, nor how much memory was
used; such columns are empty.

The one rule: a line of the file is shown to the uid that it names and to nobody else. Slurm writes names of jobs into
it as they are; somebody who names a job like a line of it can add a row to a list, which nothing acts upon.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from labstead.errors import BadInput
from labstead.relay import options
from labstead.relay.commands import Slurm
from labstead.relay.options import Place
from labstead.relay.running import MAX_STDOUT, Outcome

_MOST_BYTES = 32 * 1024 * 1024
"""How much of the file's end is read: some 80,000 jobs."""
_READERS = threading.BoundedSemaphore(2)
_MOST_ROWS = 20_000

_START = re.compile(rb"JobId=(\d+) UserId=([^ ]*)\((\d+)\) GroupId=([^ ]*)\((\d+)\) Name=")
_FIELDS = (
    "JobState Partition TimeLimit StartTime EndTime NodeList NodeCnt ProcCnt WorkDir ReservationName Tres Account QOS "
    "WcKey Cluster SubmitTime EligibleTime DerivedExitCode ExitCode"
)
"""What follows a job's name, in the file's order; the numbers of an array stand behind EligibleTime."""
_CUT = 1023
"""Bytes after which Slurm 22.05 cuts a line, and its end too, so that the next one stands in the same."""
_LONGEST = 64 * 1024


@dataclass(frozen=True)
class Job:
    """One job; times are this machine's own."""

    number: int
    shown: str
    """Its number as people see it: 17, or 17_3 of an array."""
    name: str = ""
    state: str = ""
    user: str = ""
    uid: int = 0
    submitted: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    cpus: int = 0
    other: Mapping[str, str] = field(default_factory=dict)
    """Columns by their names in small letters."""


# --- what has ended


_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?)?")
_NUMBER = re.compile(r"[0-9]{1,9}")


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if _TIME.fullmatch(text) else None  # else: Unknown, N/A
    except ValueError:  # 31 February
        return None


def _number(text: str) -> int:
    return int(text) if _NUMBER.fullmatch(text) else 0


def _limit(minutes: str) -> str:
    return _span(int(minutes) * 60) if _NUMBER.fullmatch(minutes) else minutes


def _span(seconds: int) -> str:
    """Write a time as Slurm does: [D-]HH:MM:SS."""
    days, seconds = divmod(seconds, 86400)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{days}-{clock}" if days else clock


def _told(text: str) -> dict[str, str]:
    """Read what follows `Name=`: from its end, as the name may have anything in it."""
    found = {}
    text = text.rstrip()
    for name in reversed(_FIELDS.split()):
        before, mark, value = text.rpartition(f" {name}=")
        if mark:
            text, found[name] = before, value
    eligible, *array = found.get("EligibleTime", "").split(" ")
    numbers = {name: value for name, _, value in (word.partition("=") for word in array)}
    return {**numbers, **found, "EligibleTime": eligible, "Name": text}


def _ended(line: bytes, uid: int) -> Job | None:
    """Read a line of the file; None: it is not of this uid."""
    start = _START.match(line)
    if start is None or int(start[3]) != uid:
        return None
    told = _told(line[start.end() :].decode("utf-8", "replace"))
    array = f"{told['ArrayJobId']}_{told.get('ArrayTaskId', '')}" if "ArrayJobId" in told else ""
    number = int(start[1])
    memory = re.search(r"\bmem=([^,]*)", told.get("Tres", ""))
    return Job(
        number=number,
        shown=array or str(number),
        name=told.get("Name", ""),
        state=told.get("JobState", "UNKNOWN"),
        user=start[2].decode("utf-8", "replace"),
        uid=uid,
        submitted=_time(told.get("SubmitTime", "")),
        started=_time(told.get("StartTime", "")),
        ended=_time(told.get("EndTime", "")),
        cpus=_number(told.get("ProcCnt", "")),
        other={
            "account": told.get("Account", ""),
            "cluster": told.get("Cluster", ""),
            "derivedexitcode": told.get("DerivedExitCode", ""),
            "eligible": told.get("EligibleTime", ""),
            "exitcode": told.get("ExitCode", ""),
            "gid": start[5].decode(),
            "group": start[4].decode("utf-8", "replace"),
            "nnodes": told.get("NodeCnt", ""),
            "nodelist": told.get("NodeList", ""),
            "partition": told.get("Partition", ""),
            "qos": told.get("QOS", ""),
            "reqmem": memory[1] if memory is not None else "",
            "reqtres": told.get("Tres", ""),
            "reservation": told.get("ReservationName", ""),
            "timelimit": _limit(told.get("TimeLimit", "")),
            "timelimitraw": told.get("TimeLimit", ""),
            "wckey": told.get("WcKey", ""),
            "workdir": told.get("WorkDir", ""),
        },
    )


def _lines(path: Path) -> Iterator[bytes]:
    """Give the newest lines of the file, in its order."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(size - _MOST_BYTES, 0))
            if size > _MOST_BYTES:
                stream.readline(_MOST_BYTES)
            while line := stream.readline(_LONGEST):
                if not line.endswith(b"\n") and len(line) == _LONGEST:
                    while (rest := stream.readline(_LONGEST)) and not rest.endswith(b"\n"):
                        pass
                while _START.match(line, _CUT):
                    yield line[:_CUT]
                    line = line[_CUT:]
                yield line
    except FileNotFoundError:  # nothing has ended yet
        return


def ended(path: Path, uid: int) -> Iterator[Job]:
    """Give the jobs of a uid that have ended, oldest first.

    :param path: what jobcomp/filetxt writes
    """
    mark = f"({uid}) ".encode()
    for line in _lines(path):
        if mark in line and (job := _ended(line.rstrip(b"\n"), uid)) is not None:
            yield job


# --- what has not

_SQUEUE = "%A|%i|%T|%u|%U|%V|%S|%C|%P|%a|%D|%N|%l|%q|%j"


def alive(place: Place, slurm: Slurm) -> tuple[list[Job], Outcome]:
    """Give somebody's jobs that wait or run, and what squeue said."""
    outcome = slurm.squeue_of(place.person, _SQUEUE)
    found = []
    for line in outcome.stdout.decode("utf-8", "replace").split("\n"):
        words = line.split("|", 14)
        if len(words) != 15 or not words[0].isdigit():
            continue
        (
            number,
            shown,
            state,
            user,
            uid,
            submitted,
            started,
            cpus,
            partition,
            account,
            nodes,
            names,
            limit,
            qos,
            name,
        ) = words
        is_running = state not in ("PENDING", "CONFIGURING")
        told = {
            "account": account.replace("(null)", ""),
            "exitcode": "0:0",
            "nnodes": nodes,
            "nodelist": names or "None assigned",
            "partition": partition,
            "qos": qos.replace("(null)", ""),
            "timelimit": limit,
        }
        found.append(
            Job(
                number=int(number),
                shown=shown,
                name=name,
                state=state,
                user=user,
                uid=_number(uid),
                submitted=_time(submitted),
                started=_time(started) if is_running else None,
                cpus=_number(cpus),
                other=told,
            )
        )
    return found, outcome


# --- columns

_COLUMNS = (
    "Account:10 AllocCPUS:10 Cluster:10 CPUTime:10 CPUTimeRAW:10 DerivedExitCode:15 Elapsed:10 ElapsedRaw:10 "
    "Eligible:19 End:19 ExitCode:8 GID:6 Group:9 JobID:-12 JobIDRaw:-12 JobName:10 NCPUS:10 NNodes:8 NodeList:15 "
    "Partition:10 QOS:10 ReqCPUS:8 ReqMem:10 ReqTRES:10 Reservation:20 Start:19 State:10 Submit:19 Timelimit:10 "
    "TimelimitRaw:10 UID:6 User:9 WCKey:10 WorkDir:20"
)
"""Title and width of sacct's columns; a negative width is at the left."""
_EMPTY = (
    "AdminComment AllocNodes AllocTRES AssocID AveCPU AveCPUFreq AveDiskRead AveDiskWrite AvePages AveRSS AveVMSize "
    "Comment Constraints ConsumedEnergy ConsumedEnergyRaw Container DBIndex FailedNode Flags Layout Licenses "
    "MaxDiskRead MaxDiskReadNode MaxDiskReadTask MaxDiskWrite MaxDiskWriteNode MaxDiskWriteTask MaxPages MaxPagesNode "
    "MaxPagesTask MaxRSS MaxRSSNode MaxRSSTask MaxVMSize MaxVMSizeNode MaxVMSizeTask McsLabel MinCPU MinCPUNode "
    "MinCPUTask NTasks Planned PlannedCPU PlannedCPURAW Priority QOSRAW Reason ReqCPUFreq ReqNodes ReservationId "
    "Restarts SubmitLine Suspended SystemComment SystemCPU TotalCPU UserCPU WCKeyID"
)
"""Those of which nothing is known here."""
_WIDTHS = {title: int(width) for title, width in (column.split(":") for column in _COLUMNS.split())}
_TITLE_OF = {title.lower(): title for title in (*_WIDTHS, *_EMPTY.split())}
_DEFAULT = "jobid,jobname,partition,account,alloccpus,state,exitcode"
_BRIEF = "jobid,state,exitcode"
_LONG = "jobid,jobidraw,jobname,partition,alloccpus,submit,start,end,elapsed,timelimit,state,exitcode,nodelist,reqmem"


def _written(moment: datetime | None) -> str:
    return "Unknown" if moment is None else moment.isoformat(timespec="seconds")


def _value(job: Job, column: str, now: datetime) -> str:
    elapsed = (job.ended or now) - job.started if job.started is not None else timedelta()
    seconds = max(int(elapsed.total_seconds()), 0)
    match column:
        case "jobid":
            return job.shown
        case "jobidraw":
            return str(job.number)
        case "jobname":
            return job.name
        case "state":
            return job.state
        case "user":
            return job.user
        case "uid":
            return str(job.uid)
        case "submit":
            return _written(job.submitted)
        case "start":
            return _written(job.started)
        case "end":
            return _written(job.ended)
        case "alloccpus" | "ncpus" | "reqcpus":
            return str(job.cpus)
        case "elapsed":
            return _span(seconds)
        case "elapsedraw":
            return str(seconds)
        case "cputime":
            return _span(seconds * job.cpus)
        case "cputimeraw":
            return str(seconds * job.cpus)
        case _:
            return job.other.get(column, "")


@dataclass(frozen=True)
class Column:
    """A column.

    :param width: letters; negative: at the left
    """

    name: str
    width: int

    @property
    def title(self) -> str:
        """Give its title."""
        return _TITLE_OF[self.name]

    def padded(self, text: str) -> str:
        """Write a value as wide as the column."""
        width = abs(self.width)
        if len(text) > width:
            text = text[: width - 1] + "+"
        return text.ljust(width) if self.width < 0 else text.rjust(width)


def columns(text: str) -> list[Column]:
    """Read --format: names with `%WIDTH` or without, such as JobID,JobName%30,State.

    :raises BadInput: when sacct has no such column
    """
    found = []
    for word in text.split(","):
        name, _, width = word.strip().partition("%")
        name = name.lower()
        if not name:
            continue
        if name not in _TITLE_OF:
            # As sacct does, a name may be cut.
            longer = [title for title in _TITLE_OF if title.startswith(name)]
            if not longer:
                raise BadInput(f"invalid field requested: {options.printable(name)}")
            name = longer[0]
        if width and not re.fullmatch(r"-?[1-9][0-9]{0,2}", width):
            raise BadInput(f"{options.printable(word)}: the width is a number up to 999")
        found.append(Column(name, int(width) if width else _WIDTHS.get(_TITLE_OF[name], 10)))
    if not 0 < len(found) <= len(_TITLE_OF):
        raise BadInput("--format: name some columns")
    return found


# --- which jobs

_STATES = {
    "bf": "BOOT_FAIL",
    "ca": "CANCELLED",
    "cd": "COMPLETED",
    "dl": "DEADLINE",
    "f": "FAILED",
    "nf": "NODE_FAIL",
    "oom": "OUT_OF_MEMORY",
    "pd": "PENDING",
    "pr": "PREEMPTED",
    "r": "RUNNING",
    "rq": "REQUEUED",
    "rs": "RESIZING",
    "s": "SUSPENDED",
    "to": "TIMEOUT",
}
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}


def _states(text: str) -> set[str]:
    found = set()
    for word in text.split(","):
        name = word.strip()
        state = _STATES.get(name.lower(), name.upper())
        if state not in _STATES.values():
            raise BadInput(f"--state: {options.printable(name)} is not a state of jobs")
        found.add(state)
    return found


def moment(text: str, now: datetime) -> datetime:
    """Read a time as sacct takes it: 2026-11-20, 2026-11-20T08:30, 08:30, today, midnight, now, now-2hours.

    :raises BadInput: when it is none
    """
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    words = text.strip().lower()
    if match := re.fullmatch(r"now(?:([+-])([0-9]{1,8})(second|minute|hour|day|week)?s?)?", words):
        length = timedelta(seconds=int(match[2] or 0) * _UNITS[match[3] or "second"])
        with suppress(OverflowError):  # beyond the calendar
            return now - length if match[1] == "-" else now + length
    elif words in ("today", "midnight"):
        return midnight
    elif (found := _time(words.upper())) is not None:
        return found
    elif match := re.fullmatch(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?", words):
        hours, minutes, seconds = int(match[1]), int(match[2]), int(match[3] or 0)
        if hours < 24 and minutes < 60 and seconds < 60:
            return midnight.replace(hour=hours, minute=minutes, second=seconds)
    raise BadInput(f"{options.printable(text)} is not a time; write 2026-11-20, 2026-11-20T08:30, today or now-2hours")


_KNOWN = (
    "allocations array brief delimiter duplicates endtime format jobs long name noconvert noheader parsable parsable2 "
    "partition starttime state truncate user units"
)


def sacct(args: Sequence[str], place: Place, path: Path, slurm: Slurm, now: datetime | None = None) -> Outcome:
    """Answer as sacct, for the person alone.

    :param path: what jobcomp/filetxt writes
    :raises BadInput: when the words are not those of sacct, or ask for what is not known here
    """
    given, rest = options.read("sacct", args)
    given = options.checked(given, place)
    if rest:
        raise BadInput(f"unexpected word {options.printable(rest[0])}")
    if options.has(given, *options.TELLS_OF_ITSELF):
        return slurm.tell("sacct", args, place)
    for option, _ in given:
        if option.name not in _KNOWN.split():
            raise BadInput(f"--{option.name}: this machine's Slurm has no database, which that would need")
    for names in [value for option, value in given if option.name == "user" and value is not None]:
        if set(names.split(",")) - {place.person.name, str(place.person.uid)}:
            raise BadInput(f"--user: is for {place.person.name} alone here")
    now = now or datetime.now()  # the machine's own time, as Slurm writes it
    wanted = _wanted(given, now)
    shown = columns(_format(given))
    with _READERS:
        jobs: dict[str, Job] = {}
        for job in ended(path, place.person.uid):
            if wanted(job):
                jobs.pop(job.shown, None)
                jobs[job.shown] = job
                if len(jobs) > _MOST_ROWS:
                    del jobs[next(iter(jobs))]
    running, outcome = alive(place, slurm)
    for job in running:
        if wanted(job):
            jobs.setdefault(job.shown, job)
    if outcome.exit:
        return outcome
    in_order = sorted(jobs.values(), key=lambda job: job.number)
    rows = ([_value(job, column.name, now) for column in shown] for job in in_order)
    return Outcome(0, _table(shown, rows, given).encode("utf-8", "replace")[:MAX_STDOUT])


def _format(given: Sequence[options.Given]) -> str:
    if options.has(given, "format"):
        return ",".join(value for option, value in given if option.name == "format" and value is not None)
    if options.has(given, "long"):
        return _LONG
    return _BRIEF if options.has(given, "brief") else _DEFAULT


def _wanted(given: Sequence[options.Given], now: datetime) -> Callable[[Job], bool]:
    """Make the test that a job must pass."""
    jobs = options.last(given, "jobs")
    numbers = {word.strip().partition(".")[0] for word in jobs.split(",")} if jobs is not None else None
    states = options.last(given, "state")
    among = _states(states) if states is not None else None
    names = options.last(given, "name")
    partition = options.last(given, "partition")
    start, end = options.last(given, "starttime"), options.last(given, "endtime")
    # As sacct: today's, but all of those that are asked for by number.
    since = moment("today", now) if start is None and numbers is None else None
    since = moment(start, now) if start is not None else since
    until = moment(end, now) if end is not None else None

    def test(job: Job) -> bool:
        if numbers is not None and not {job.shown, str(job.number), job.shown.partition("_")[0]} & numbers:
            return False
        if among is not None and job.state.split(" ")[0] not in among:
            return False
        if names is not None and job.name not in names.split(","):
            return False
        if partition is not None and job.other.get("partition") not in partition.split(","):
            return False
        if since is not None and job.ended is not None and job.ended < since:
            return False
        begun = job.submitted or job.started
        return until is None or begun is None or begun <= until

    return test


def _table(shown: Sequence[Column], rows: Iterable[Sequence[str]], given: Sequence[options.Given]) -> str:
    is_parsable = options.has(given, "parsable", "parsable2")
    delimiter = options.last(given, "delimiter") or "|"
    end = "" if options.has(given, "parsable2") else delimiter

    def line(words: Sequence[str]) -> str:
        # A name may have anything in it.
        plain = [options.one_line(word) for word in words]
        if is_parsable:
            return delimiter.join(plain) + end + "\n"
        return "".join(column.padded(word) + " " for column, word in zip(shown, plain, strict=True)) + "\n"

    text = []
    if not options.has(given, "noheader"):
        text.append(line([column.title for column in shown]))
        if not is_parsable:
            text.append("".join("-" * abs(column.width) + " " for column in shown) + "\n")
    size = 0
    for row in rows:
        text.append(line(row))
        size += len(text[-1])
        if size > MAX_STDOUT:
            break
    return "".join(text)

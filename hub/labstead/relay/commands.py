"""What is run for what somebody asked.

The one rule: the words that Slurm's commands get are made here, from what was understood; none is passed on as it came.
"""

import json
import posixpath
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labstead.errors import BadInput, LabsteadError
from labstead.identity import Identity
from labstead.relay import limits, options, protocol, running, script
from labstead.relay.options import Given, Place
from labstead.relay.running import Outcome
from labstead.settings import Compute

_DIGEST = re.compile(r"(?:^|@sha256:)([0-9a-f]{12})(?:$|[0-9a-f]{52}$)")
_JOB = re.compile(r"[0-9]{1,10}(_([0-9]{1,10}|\*|\[[0-9,:%-]{1,200}\]))?(\.([0-9]{1,10}|batch|extern))?")
_ALIVE = "PENDING,CONFIGURING,RUNNING,SUSPENDED"
_THERE = f"{_ALIVE},COMPLETING"
_LINE = re.compile(r"([0-9]+)\|([^|]*)\|(.*)")
_HUB_SECONDS = 4.0
"""How long a command may take that the hub waits for, or that comes before another one."""
_STUCK_SECONDS = 60.0
_ROUNDS = 3
"""How often jobs are looked for that are to end: some may be submitted meanwhile, others end by themselves."""
_WRAPPER = "#!/bin/sh\n"


@dataclass(frozen=True)
class Submission:
    """A job to submit.

    :param given: its options
    :param rest: the script's name and its words; empty: it comes from standard input, or is wrapped
    :param index: which of the request's words names the script
    """

    given: list[Given]
    rest: list[str]
    index: int | None

    @property
    def needs_script(self) -> bool:
        """Tell whether there is a script to read."""
        return not self.only_tells and not options.has(self.given, "wrap")

    @property
    def only_tells(self) -> bool:
        """Tell whether nothing is submitted."""
        return options.has(self.given, *options.TELLS_OF_ITSELF)


@dataclass(frozen=True)
class Job:
    """A job of Slurm's, or a task of an array."""

    number: int
    user: str
    is_dask: bool


ROOT = Identity.model_validate({"name": "root", "uid": 0, "gid": 0, "groups": (), "home": "/", "shell": "/bin/sh"})
"""Whom Slurm shows everybody's jobs."""


class Slurm:
    """Slurm's commands as one site has them.

    :param compute: compute.yml
    :param images_root: folder of the flattened images
    :param at_once: how many run at the same time
    """

    def __init__(self, compute: Compute, images_root: Path, at_once: int) -> None:
        self._compute = compute
        self._images_root = images_root
        self._turns = threading.BoundedSemaphore(at_once)
        self._failing_since: float | None = None

    @property
    def is_stuck(self) -> bool:
        """Tell whether no command could be started for a while."""
        since = self._failing_since
        return since is not None and time.monotonic() - since >= _STUCK_SECONDS

    def run(
        self,
        person: Identity,
        command: str,
        words: Sequence[str],
        cwd: str = "/",
        content: bytes | None = None,
        image: str = "",
        seconds: float = running.SECONDS,
    ) -> Outcome:
        """Run one of the commands as a person."""
        environment = running.environment(person, self._images_root / "bin")
        if image:
            environment["LABSTEAD_IMAGE"] = image
        if self._compute.slurm_conf is not None:
            environment["SLURM_CONF"] = str(self._compute.slurm_conf)
        program = str(self._compute.commands / command)
        with self._turns:
            try:
                outcome = running.run(person, [program, *words], environment, cwd, content, seconds)
            except running.CannotStart:
                self._failing_since = self._failing_since or time.monotonic()
                raise
        self._failing_since = None
        return outcome

    # --- sbatch

    def submission(self, args: Sequence[str], place: Place) -> Submission:
        """Read the words of sbatch.

        :raises BadInput: when they are not passed on
        """
        given, rest = options.read("sbatch", args)
        given = options.checked(given, place)
        for word in rest:
            _argument(word)
        if rest and options.has(given, "wrap"):
            raise BadInput("--wrap and a script do not go together")
        return Submission(given, rest, len(args) - len(rest) if rest else None)

    def submit(
        self, asked: Submission, content: bytes, place: Place, image: str, job_limit: limits.JobLimit
    ) -> tuple[Outcome, bool]:
        """Submit a job.

        :param content: of its script; nothing where none is needed
        :return: what came of it, and whether it is one of Dask's
        :raises BadInput: when the script is not passed on, or there are too many jobs
        """
        person = place.person
        if asked.only_tells:
            return self.run(person, "sbatch", options.written(asked.given)), False
        wrapped = options.last(asked.given, "wrap")
        text = script.decoded(content) if wrapped is None else _WRAPPER + wrapped
        header, others = options.read("sbatch", script.header(text))
        if others:
            raise BadInput(f"invalid directive in the script: {options.printable(others[0])}")
        if options.has(header, "wrap"):
            raise BadInput("--wrap in a script")
        everything = [*header, *asked.given]
        options.checked(header, place, everything)
        is_dask = script.is_dask(text, str(self._images_root / "bin" / "in-image"))
        words = ["--ignore-pbs", "--propagate=NONE", *options.written(asked.given)]
        if not options.has(everything, "chdir"):
            words.append(f"--chdir={place.cwd}")
        if asked.rest and not options.has(everything, "job-name"):
            words.append(f"--job-name={posixpath.basename(asked.rest[0])}")
        if is_dask:
            words.append(f"--comment={protocol.DASK}")
        if len(asked.rest) > 1:
            # A script from standard input has no words of its own, but one from this file has.
            words += ["/dev/stdin", *asked.rest[1:]]
        array = options.last(everything, "array")
        jobs = 0 if options.has(everything, "test-only") else 1 if array is None else limits.tasks(array)
        with job_limit.submitting(person.uid, jobs, lambda: self._count(person)) as submission:
            given = content if wrapped is None else None
            outcome = self.run(person, "sbatch", words, place.cwd, given, self.digest(image))
            submission.succeeded = outcome.exit == 0
        return outcome, is_dask

    def digest(self, image: str) -> str:
        """Give the digest of a flattened image, by its reference or digest; empty: there is none."""
        if match := _DIGEST.search(image):
            image = match[1]
            return image if (self._images_root / "images" / f"{image}.json").is_file() else ""
        found: list[tuple[float, str]] = []
        for path in (self._images_root / "images").glob("*.json") if image else ():
            try:
                told = json.loads(path.read_text(encoding="utf-8"))
                if told["reference"] == image and _DIGEST.fullmatch(told["digest"]):
                    found.append((path.stat().st_mtime, told["digest"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return max(found)[1] if found else ""

    # --- scancel and those that only tell

    def cancel(self, args: Sequence[str], place: Place) -> Outcome:
        """Cancel jobs of the person.

        :raises BadInput: when the words are not passed on
        """
        given, rest = options.read("scancel", args)
        given = options.checked(given, place)
        for word in rest:
            if not _JOB.fullmatch(word):
                raise BadInput(f"{options.printable(word)} is not the number of a job")
        if not rest and not options.has(given, *options.TELLS_OF_ITSELF):
            if not given:
                raise BadInput("say which jobs: their numbers, or an option such as --me or --name")
            given.append((options.table("scancel")["user"], place.person.name))
        return self.run(place.person, "scancel", [*options.written(given), *rest])

    def tell(self, command: protocol.Command, args: Sequence[str], place: Place) -> Outcome:
        """Run squeue, sinfo, or the site's sacct.

        :raises BadInput: when the words are not passed on
        """
        given, rest = options.read(command, args)
        if rest and command == "squeue":
            # squeue takes its first other word for what -j or -s is about.
            for position, (option, value) in enumerate(given):
                if option.name in ("jobs", "steps") and value is None and rest:
                    given[position] = (option, rest.pop(0))
        if rest:
            raise BadInput(f"unexpected word {options.printable(rest[0])}")
        return self.run(place.person, command, options.written(options.checked(given, place)))

    # --- what the hub asks

    def squeue_of(self, person: Identity, columns: str) -> Outcome:
        """List somebody's jobs that wait or run, with these columns of `squeue --format`."""
        return self.run(person, "squeue", ["--noheader", *_whose(person), f"--states={_ALIVE}", f"--format={columns}"])

    def there(self, person: Identity, states: str = _THERE) -> list[Job]:
        """List somebody's jobs that wait, run or complete; root, who is nobody's person, sees everybody's.

        :raises LabsteadError: when Slurm does not say
        """
        words = ["--noheader", "--array", *_whose(person), f"--states={states}", "--format=%A|%u|%k"]
        outcome = self.run(person, "squeue", words, seconds=_HUB_SECONDS)
        if problem := _problem("squeue", outcome):
            raise LabsteadError(problem)
        lines = outcome.stdout.decode("utf-8", "replace").split("\n")
        found = [match for match in map(_LINE.fullmatch, lines) if match is not None]
        return [Job(int(match[1]), match[2], match[3] == protocol.DASK) for match in found]

    def _count(self, person: Identity) -> int:
        try:
            return len(self.there(person, _ALIVE))
        except LabsteadError:
            return 0  # sbatch will say what is wrong

    def end(self, person: Identity, what: str) -> int:
        """Cancel somebody's jobs: those of Dask, or all.

        :return: how many were told to end
        :raises LabsteadError: when Slurm does not do it
        """
        ended: set[int] = set()
        count = 0
        problem = ""
        for _ in range(_ROUNDS):
            found = [job.number for job in self.there(person, _ALIVE) if job.is_dask or what == "all"]
            if not found:
                return count
            count += sum(number not in ended for number in found)
            ended.update(found)
            numbers = [str(number) for number in sorted(set(found))]
            outcome = self.run(person, "scancel", numbers, seconds=_HUB_SECONDS)
            problem = _problem("scancel", outcome) or problem
        if problem:
            raise LabsteadError(problem)
        return count


def _whose(person: Identity) -> list[str]:
    return [] if person == ROOT else [f"--user={person.uid}"]


def _argument(word: str) -> None:
    if not word.isprintable():
        raise BadInput("a word of the script has a character in it that cannot be printed")


def _problem(command: str, outcome: Outcome) -> str:
    if not outcome.exit:
        return ""
    words = " ".join(outcome.stderr.decode("utf-8", "replace").split())[:300]
    return f"{command}: {words or f'exit code {outcome.exit}'}"

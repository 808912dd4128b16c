"""Which words Slurm's commands are given.

Each command has a table of the options that are passed on; any other one is refused by name, and so are abbreviations.
What is passed on is made anew, as `--name=value`, from what was understood here.

The one rule: this is for clear words and against surprises (files that a command would read on this machine, waiting,
other clusters). It keeps nobody from anything: a command runs as the person, whatever its words are.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from labstead.errors import BadInput
from labstead.identity import Identity
from labstead.relay.protocol import Command

_MOST_LETTERS = 1024
"""Characters of an option's value."""
_MOST_WRAPPED = 32 * 1024
"""Characters of what --wrap wraps."""


@dataclass(frozen=True)
class Place:
    """Who asks, and where they are.

    :param person: with their folders; see `identity.with_folders`
    :param cwd: an absolute path
    """

    person: Identity
    cwd: str

    @property
    def folders(self) -> tuple[str, ...]:
        """Give the folders below which jobs can read and write: home, those of groups, scratch."""
        person = self.person
        scratch = () if person.scratch is None else (person.scratch,)
        return tuple(str(folder) for folder in (person.home, *person.folders, *scratch))

    def has(self, path: str) -> bool:
        """Tell whether a path without `..` is one of those folders, or below it."""
        return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in self.folders)

    def absolute(self, path: str) -> str:
        """Give the path that somebody means who is here."""
        return posixpath.normpath(posixpath.join(self.cwd, path))


def place(person: Identity, cwd: str) -> Place:
    """Say where somebody is: where they say, or in their home where no job could be."""
    here = Place(person, posixpath.normpath(cwd) if cwd.startswith("/") and cwd.isprintable() else "/")
    return here if here.has(here.cwd) else Place(person, str(person.home))


_Check = Callable[[str, Place], str]


# --- what a value may be


def _word(value: str, _place: Place) -> str:
    if not value.isprintable():
        raise BadInput("has a character in it that cannot be printed")
    if len(value) > _MOST_LETTERS:
        raise BadInput(f"has {len(value)} characters; at most {_MOST_LETTERS}")
    return value


def _wrapped(value: str, _place: Place) -> str:
    if not value.replace("\n", "").replace("\t", "").isprintable():
        raise BadInput("has a character in it that cannot be printed")
    if len(value) > _MOST_WRAPPED:
        raise BadInput(f"has {len(value)} characters; at most {_MOST_WRAPPED}: put them in a script")
    return value


def _path(value: str, place: Place) -> str:
    path = place.absolute(_word(value, place))
    if path == "/dev/null" or place.has(path):
        return value
    raise BadInput(f"{path} is not in your home, a folder of your groups or your scratch, where jobs can write")


def _nodes(value: str, place: Place) -> str:
    if "/" in value:
        raise BadInput("takes names of nodes, not a file of them")
    return _word(value, place)


def _export(value: str, place: Place) -> str:
    first, *others = _word(value, place).split(",")
    if re.search(r",(SLURM|SBATCH|SPANK|SQUEUE|SCANCEL|SACCT|SINFO)_", value):
        raise BadInput("variables of Slurm's own are options in other words; write the option")
    if first == "ALL" and all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=.*", other) for other in others):
        return value
    raise BadInput(
        "jobs start with a clean environment, so leave it out, or write ALL,NAME=value,… (values without commas)"
    )


def _own(value: str, place: Place) -> str:
    if value in (place.person.name, str(place.person.uid)):
        return value
    raise BadInput(f"is for {place.person.name} alone here")


# --- the tables

_SBATCH: dict[str, _Check | None] = {
    "account|A=": _word,
    "array|a=": _word,
    "begin|b=": _word,
    "chdir|D=": _path,
    "comment=": _word,
    "constraint|C=": _word,
    "contiguous": None,
    "cores-per-socket=": _word,
    "cpus-per-gpu=": _word,
    "cpus-per-task|c=": _word,
    "deadline=": _word,
    "dependency|d=": _word,
    "distribution|m=": _word,
    "error|e=": _path,
    "exclude|x=": _nodes,
    "exclusive=?": _word,
    "export=": _export,
    "extra-node-info|B=": _word,
    "gpu-bind=": _word,
    "gpu-freq=": _word,
    "gpus|G=": _word,
    "gpus-per-node=": _word,
    "gpus-per-socket=": _word,
    "gpus-per-task=": _word,
    "gres=": _word,
    "gres-flags=": _word,
    "help|h": None,
    "hint=": _word,
    "hold|H": None,
    "ignore-pbs": None,
    "input|i=": _path,
    "job-name|J=": _word,
    "kill-on-invalid-dep=": _word,
    "licenses|L=": _word,
    "mail-type=": _word,
    "mail-user=": _word,
    "mem=": _word,
    "mem-bind=": _word,
    "mem-per-cpu=": _word,
    "mem-per-gpu=": _word,
    "mincpus=": _word,
    "nice=?": _word,
    "no-kill|k=?": _word,
    "no-requeue": None,
    "nodelist|w=": _nodes,
    "nodes|N=": _word,
    "ntasks|n=": _word,
    "ntasks-per-core=": _word,
    "ntasks-per-gpu=": _word,
    "ntasks-per-node|tasks-per-node=": _word,
    "ntasks-per-socket=": _word,
    "open-mode=": _word,
    "output|o=": _path,
    "overcommit|O": None,
    "oversubscribe|s": None,
    "parsable": None,
    "partition|p=": _word,
    "qos|q=": _word,
    "quiet|Q": None,
    "requeue": None,
    "reservation=": _word,
    "signal=": _word,
    "sockets-per-node=": _word,
    "spread-job": None,
    "switches=": _word,
    "test-only": None,
    "threads-per-core=": _word,
    "time|t=": _word,
    "time-min=": _word,
    "tmp=": _word,
    "usage": None,
    "use-min-nodes": None,
    "version|V": None,
    "wckey=": _word,
    "wrap=": _wrapped,
}
_SCANCEL: dict[str, _Check | None] = {
    "account|A=": _word,
    "batch|b": None,
    "ctld": None,
    "full|f": None,
    "help": None,
    "hurry|H": None,
    "me": None,
    "name|jobname|n=": _word,
    "nodelist|w=": _nodes,
    "partition|p=": _word,
    "qos|q=": _word,
    "quiet|Q": None,
    "reservation|R=": _word,
    "signal|s=": _word,
    "state|t=": _word,
    "usage": None,
    "user|u=": _own,
    "verbose|v": None,
    "version|V": None,
    "wckey=": _word,
}
_SQUEUE: dict[str, _Check | None] = {
    "Format|O=": _word,
    "account|accounts|A=": _word,
    "all|a": None,
    "array|r": None,
    "array-unique": None,
    "expand-patterns": None,
    "format|o=": _word,
    "help": None,
    "helpFormat": None,
    "helpformat": None,
    "helpstate": None,
    "hide": None,
    "jobs|j=?": _word,
    "json=?": _word,
    "licenses|L=": _word,
    "long|l": None,
    "me": None,
    "name|n=": _word,
    "noconvert": None,
    "nodelist|nodes|node|w=": _nodes,
    "noheader|h": None,
    "notme": None,
    "only-job-state": None,
    "partition|partitions|p=": _word,
    "priority|P": None,
    "qos|q=": _word,
    "reservation|R=": _word,
    "sort|S=": _word,
    "start": None,
    "states|state|t=": _word,
    "steps|s=?": _word,
    "usage": None,
    "user|users|u=": _word,
    "verbose|v": None,
    "version|V": None,
    "yaml=?": _word,
}
_SINFO: dict[str, _Check | None] = {
    "Format|O=": _word,
    "Node|N": None,
    "all|a": None,
    "dead|d": None,
    "exact|e": None,
    "format|o=": _word,
    "future|F": None,
    "help": None,
    "helpFormat": None,
    "helpformat": None,
    "helpstate": None,
    "hide": None,
    "json=?": _word,
    "list-reasons|R": None,
    "long|l": None,
    "noconvert": None,
    "nodes|n=": _nodes,
    "noheader|h": None,
    "partition|p=": _word,
    "reservation|T": None,
    "responding|r": None,
    "sort|S=": _word,
    "states|state|t=": _word,
    "summarize|s": None,
    "usage": None,
    "verbose|v": None,
    "version|V": None,
    "yaml=?": _word,
}
_SACCT: dict[str, _Check | None] = {
    "accounts|A=": _word,
    "allocations|X": None,
    "allusers|a": None,
    "array": None,
    "brief|b": None,
    "constraints|C=": _word,
    "delimiter=": _word,
    "duplicates|D": None,
    "endtime|E=": _word,
    "expand-patterns": None,
    "flags|F=": _word,
    "format|fields|o=": _word,
    "group|gid|g=": _word,
    "help|h": None,
    "helpformat|help-fields|e": None,
    "helpreason": None,
    "helpstate": None,
    "jobs|j=": _word,
    "json=?": _word,
    "long|l": None,
    "name=": _word,
    "ncpus|I=": _word,
    "nnodes|i=": _word,
    "noconvert": None,
    "nodelist|N=": _nodes,
    "noheader|n": None,
    "parsable|p": None,
    "parsable2|P": None,
    "partition|r=": _word,
    "qos|q=": _word,
    "reason=": _word,
    "starttime|S=": _word,
    "state|s=": _word,
    "timelimit-max|K=": _word,
    "timelimit-min|k=": _word,
    "truncate|T": None,
    "units=": _word,
    "usage|U": None,
    "user|uid|u=": _word,
    "verbose|v": None,
    "version|V": None,
    "whole-hetjob=?": _word,
    "wckeys|W=": _word,
    "yaml=?": _word,
}
_TABLES: dict[Command, dict[str, _Check | None]] = {
    "sbatch": _SBATCH,
    "scancel": _SCANCEL,
    "squeue": _SQUEUE,
    "sinfo": _SINFO,
    "sacct": _SACCT,
}

_YOURS = "jobs are always your own"
_A_FILE = "the command would read a file on the hub's machine"
_NO_WAITING = "a session's commands do not wait; ask again instead"
_OTHER = "sessions know one cluster"
_REASONS: dict[tuple[Command, str], str] = {
    ("sbatch", "uid"): _YOURS,
    ("sbatch", "gid"): _YOURS,
    ("sbatch", "get-user-env"): "jobs start with a clean environment",
    ("sbatch", "export-file"): _A_FILE,
    ("sbatch", "nodefile"): _A_FILE,
    ("sbatch", "F"): _A_FILE,
    ("sbatch", "bbf"): _A_FILE,
    ("sbatch", "propagate"): "limits of the relay are not those of a job",
    ("sbatch", "wait"): "a session's commands do not wait; see squeue, or chain jobs by --dependency",
    ("sbatch", "W"): "a session's commands do not wait; see squeue, or chain jobs by --dependency",
    ("scancel", "interactive"): "there is nobody to ask",
    ("scancel", "i"): "there is nobody to ask",
    ("squeue", "iterate"): _NO_WAITING,
    ("squeue", "i"): _NO_WAITING,
    ("sinfo", "iterate"): _NO_WAITING,
    ("sinfo", "i"): _NO_WAITING,
    ("sacct", "file"): _A_FILE,
    ("sacct", "f"): _A_FILE,
    ("sacct", "completion"): "it shows everybody's jobs or none; leave it out",
    ("sacct", "c"): "it shows everybody's jobs or none; leave it out",
}
_CLUSTERS = (
    "M",
    "L",
    "cluster",
    "clusters",
    "allclusters",
    "federation",
    "sibling",
    "sib",
    "local",
    "cluster-constraint",
)

TELLS_OF_ITSELF = frozenset(("help", "usage", "version", "helpformat", "helpFormat", "helpstate", "helpreason"))
"""Options with which a command tells of itself and does nothing else."""


@dataclass(frozen=True)
class Option:
    """One option of a command.

    :param name: its long name
    :param takes: a value or none; `maybe`: only one that is written with it, as in --name=value or -nvalue
    :param check: refuses a value, or gives what to pass on
    """

    name: str
    takes: Literal["nothing", "value", "maybe"]
    check: _Check


@cache
def table(command: Command) -> dict[str, Option]:
    """Give the options of a command by all their names, letters too."""
    found: dict[str, Option] = {}
    for words, check in _TABLES[command].items():
        takes: Literal["nothing", "value", "maybe"] = "nothing"
        if words.endswith("=?"):
            takes = "maybe"
        elif words.endswith("="):
            takes = "value"
        names = words.rstrip("=?").split("|")
        found |= dict.fromkeys(names, Option(names[0], takes, check or _word))
    return found


def _reason(command: Command, name: str) -> str:
    if name in _CLUSTERS:
        return _OTHER
    return _REASONS.get((command, name), "it is not passed on from a session")


def _find(command: Command, name: str, shown: str) -> Option:
    option = table(command).get(name)
    if option is None:
        near = [long for long in table(command) if len(name) > 1 and long.startswith(name)]
        if near and (command, name) not in _REASONS:
            raise BadInput(f"{shown}: write the option's whole name, such as --{near[0]}")
        raise BadInput(f"{shown}: {_reason(command, name)}")
    return option


Given = tuple[Option, str | None]
"""An option that was given, and its value if it has one."""


def _long(command: Command, word: str, words: Iterator[str]) -> Given:
    name, is_there, value = word[2:].partition("=")
    if len(name) < 2:  # letters have one dash
        raise BadInput(f"{printable(word)}: not an option of {command}")
    shown = f"--{printable(name)}"
    option = _find(command, name, shown)
    if is_there:
        if option.takes == "nothing":
            raise BadInput(f"{shown} takes no value")
        return option, value
    return option, _next(words, shown) if option.takes == "value" else None


def _short(command: Command, word: str, words: Iterator[str]) -> Iterator[Given]:
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        shown = f"-{printable(letter)}"
        option = _find(command, letter, shown)
        if option.takes == "nothing":
            yield option, None
            continue
        attached, letters = letters, ""
        if attached or option.takes == "maybe":
            yield option, attached or None
        else:
            yield option, _next(words, shown)


def _next(words: Iterator[str], shown: str) -> str:
    for word in words:
        return word
    raise BadInput(f"{shown} needs a value")


def one_line(text: str) -> str:
    """Give a text without what could not be printed in a line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def printable(text: str) -> str:
    """Give the beginning of what somebody sent, for a message."""
    return one_line(text[:80])


def read(command: Command, args: Sequence[str]) -> tuple[list[Given], list[str]]:
    """Read the words of a command as getopt_long(3) would, but for abbreviations.

    sbatch's options end where the script is named; those of others may stand anywhere.

    :return: its options in their order, and the other words
    :raises BadInput: when an option is not passed on
    """
    given: list[Given] = []
    rest: list[str] = []
    words = iter(args)
    for word in words:
        if word == "--":
            rest += words
        elif word.startswith("--"):
            given.append(_long(command, word, words))
        elif word.startswith("-") and word != "-":
            given += _short(command, word, words)
        else:
            rest.append(word)
            if command == "sbatch":
                rest += words
    return given, rest


def checked(given: Sequence[Given], place: Place, everything: Sequence[Given] | None = None) -> list[Given]:
    """Give the options with their values as they are passed on.

    :param place: where relative paths begin, but where --chdir moves to another folder
    :param everything: in which --chdir may stand; default: the options themselves
    :raises BadInput: when a value cannot be
    """
    folder = last(given if everything is None else everything, "chdir")
    moved = place if folder is None else Place(place.person, place.absolute(folder))
    good: list[Given] = []
    for option, value in given:
        try:
            where = place if option.name == "chdir" else moved
            good.append((option, value if value is None else option.check(value, where)))
        except BadInput as error:
            raise BadInput(f"--{option.name}: {error}") from None
    return good


def last(given: Sequence[Given], name: str) -> str | None:
    """Give the value that holds of an option: the last one; None: it has none, or was not given."""
    return next((value for option, value in reversed(given) if option.name == name), None)


def has(given: Iterable[Given], *names: str) -> bool:
    """Tell whether one of these options was given."""
    return any(option.name in names for option, _ in given)


def written(given: Iterable[Given]) -> list[str]:
    """Write options for a command."""
    return [f"--{option.name}" if value is None else f"--{option.name}={value}" for option, value in given]


def told(given: Iterable[Given]) -> list[str]:
    """Write options for the journal, without what may be a secret."""
    plain = [(option, "…" if option.name in ("export", "wrap") else value) for option, value in given]
    return written(plain)

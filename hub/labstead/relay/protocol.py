"""What may be asked of the relay.

One connection to /run/labstead/relay/relay.sock carries one request: a JSON object on one line of at most 64 KiB. To
`run` one of Slurm's commands, the relay may first answer `{"need":"script","index":K}`: it wants the file that args[K]
names (null: standard input), which comes as a line `{"script":N}` and N bytes; of a file of more than 1 MiB its size
alone is sent, and refused. The answer is a line `{"exit":E,"stdout":A,"stderr":B}`, then A and B bytes. A refusal is an
answer like any other: exit 2 and a line on stderr that begins with `COMMAND: labstead: `. Exit 75 is a relay that is
busy: ask again a little later. An answer may come before the request was read to its end.

The hub's user and root ask for the `jobs` of somebody or of all, and to `end` somebody's; those answers are one line of
JSON, `{"error":"…"}` where it cannot be done.

The one rule: a request says which words somebody typed, where, and in which image; never who they are.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from labstead.names import MAX_LENGTH

SOCKET = "/run/labstead/relay/relay.sock"
MAX_LINE = 64 * 1024
MAX_SCRIPT = 1024 * 1024

EXIT_REFUSED = 2
EXIT_BUSY = 75
"""EX_TEMPFAIL of sysexits(3)."""

DASK = "labstead:dask"
"""Comment of jobs that are workers of Dask."""

Command = Literal["sbatch", "scancel", "squeue", "sinfo", "sacct"]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Run(_Message):
    """Run one of Slurm's commands as the caller."""

    version: Literal[1] = 1
    op: Literal["run"] = "run"
    command: Command
    args: Annotated[list[str], Field(max_length=1024)]
    cwd: Annotated[str, Field(max_length=4096)] = ""
    """Folder in which it was typed; jobs start there, or in the home where no job could."""
    image: Annotated[str, Field(max_length=1024)] = ""
    """Reference of the session's image, for `in-session`; empty: none."""


class CountJobs(_Message):
    """How many jobs of somebody, or of everybody, wait, run or complete (hub and root). Reply: `Jobs` or `People`."""

    version: Literal[1] = 1
    op: Literal["jobs"] = "jobs"
    user: Annotated[str, Field(max_length=8 * MAX_LENGTH)] | None = None


class End(_Message):
    """Cancel somebody's jobs (hub and root): those of Dask, or all. Reply: `Ended`."""

    version: Literal[1] = 1
    op: Literal["end"] = "end"
    user: Annotated[str, Field(max_length=8 * MAX_LENGTH)]
    what: Literal["dask", "all"] = "dask"


Request = Run | CountJobs | End

request_adapter: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="op")])


class Script(_Message):
    """Says how many bytes of a script follow."""

    script: Annotated[int, Field(ge=0)]


class NeedScript(_Message):
    """Asks for a script."""

    need: Literal["script"] = "script"
    index: int | None


class Done(_Message):
    """What a command did; the bytes of stdout and stderr follow."""

    exit: int
    stdout: int
    stderr: int


class Jobs(_Message):
    """How many jobs somebody has; tasks of an array count each."""

    jobs: int
    dask: int


class People(_Message):
    """How many jobs everybody has who has any, by their names."""

    people: dict[str, Jobs]


class Ended(_Message):
    """How many jobs were told to end."""

    ended: int


class Error(_Message):
    """Why something was not done."""

    error: str

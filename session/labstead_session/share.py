"""The command `share`: let others read files and folders of one's own.

The one rule: it says what it opens, for whom and until when. Exit codes: 0 done, 1 something is in the way, 2 the
command itself is wrong; with 1 and 2 nothing was changed.
"""

import argparse
import datetime
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from labstead_session import people, sharing, store
from labstead_session.errors import Hindered, Mistake
from labstead_session.sharing import Listed, Report
from labstead_session.store import Share, Store

USAGE = """\
usage: share PATH with USER|GROUP|everyone … [--until DATE] [--json]
       share list [--json]
       share stop PATH [with USER|GROUP|everyone …] [--json]
       share stop --all [--json]
       share expire [--json]
"""
HELP = (
    USAGE
    + """
Let others read a file or folder of yours. Nobody can change it, and nothing else opens.

  share results with ben                     ben may read the folder and what you put there later
  share results with ocean --until 2027-03-31     everyone in the group ocean, up to and on that day
  share talk.pdf with everyone               whoever has an account on this machine
  share ./list with group:ben                a path named like a command; a group named like a person
  share list                                 what you share
  share stop results with ben                end it for one
  share stop results                         end it for all
  share expire                               end what is past its last day (done each night anyway)

  --until DATE   last day, as YYYY-MM-DD
  --json         answer in JSON

To reach what you share, they may pass through the folders above it, without seeing what else is there.
What you move out of a shared folder takes its rights along; `setfacl --remove-all` takes them from it.
"""
)


class _Wrong(Mistake):
    """The command line is not one."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}; see `share --help`")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Wrong(message)


def _day(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date; write YYYY-MM-DD") from None


def _options() -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--until", type=_day)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    return parser


# --- in words


def _until(share: Share) -> str:
    return f" until the end of {share.until.isoformat()}" if share.until else ""


def _number(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


def _left_alone(report: Report) -> list[str]:
    parts = [
        (report.others, "file of other people", "files of other people"),
        (report.hard_links, "file with several names (hard links)", "files with several names (hard links)"),
        (report.links, "symbolic link", "symbolic links"),
        (report.unread, "folder that you cannot read", "folders that you cannot read"),
    ]
    return [_number(count, one, several) for count, one, several in parts if count]


def opened(report: Report) -> list[str]:
    """Say in lines what was opened."""
    share = report.share
    if not report.kept:
        return [f"{share.who} could read {share.path} before; nothing was changed, and nothing will end."]
    what = _number(report.files, "file", "files")
    if report.folders:
        what = f"{_number(report.folders, 'folder', 'folders')} and {what}, and what comes there later"
    lines = [f"Open for {share.who}{_until(share)}: {share.path} ({what}), to read."]
    if report.passed:
        lines.append("To get there they may pass through, without seeing what else is in them:")
        lines += [f"  {path}" for path in report.passed]
        lines.append("In JupyterLab they open it with File, Open from Path…, as they cannot click through those.")
    if report.closed:
        count = _number(len(report.closed), "other file or folder", "other files and folders")
        lines.append(f"So that all else stays closed, {count} on the way lost rights for others, until the share ends.")
    if left := _left_alone(report):
        lines.append(f"Left alone: {', '.join(left)}.")
    return lines


def ended(report: Report) -> str:
    """Say in a line what has ended."""
    return f"No longer shared with {report.share.who}: {report.share.path}"


def share_model(share: Share) -> dict[str, Any]:
    """Give a share as JSON has it."""
    return {
        "path": os.fspath(share.path),
        "with": share.who.name,
        "kind": share.who.kind,
        "until": share.until.isoformat() if share.until else None,
        "since": share.since,
    }


def report_model(report: Report) -> dict[str, Any]:
    """Give a report as JSON has it."""
    return {
        **share_model(report.share),
        "changed": report.changed,
        "kept": report.kept,
        "files": report.files,
        "folders": report.folders,
        "passed": [os.fspath(path) for path in report.passed],
        "closed": [os.fspath(path) for path in report.closed],
        "left_alone": {
            "others": report.others,
            "hard_links": report.hard_links,
            "links": report.links,
            "unread": report.unread,
        },
    }


def listed_model(listed: Listed) -> dict[str, Any]:
    """Give an entry of the list as JSON has it."""
    return {**share_model(listed.share), "is_there": listed.is_there}


def _table(rows: list[Listed]) -> list[str]:
    cells = [("WITH", "UNTIL", "PATH")]
    for row in rows:
        share = row.share
        gone = "" if row.is_there else "  (gone; `share stop` it)"
        cells.append((str(share.who), share.until.isoformat() if share.until else "-", f"{share.path}{gone}"))
    widths = [max(len(cell[column]) for cell in cells) for column in (0, 1)]
    return [f"{who:{widths[0]}}  {until:{widths[1]}}  {path}" for who, until, path in cells]


# --- the commands


def _print(as_json: bool, model: Any, lines: Sequence[str]) -> None:
    text = json.dumps(model, indent=2) if as_json else "\n".join(lines)
    # Names of files may be no proper text.
    sys.stdout.buffer.write(f"{text}\n".encode(errors="surrogateescape") if text else b"")
    sys.stdout.flush()


def _with(words: list[str]) -> list[people.Who]:
    names = [name for word in words for name in word.split(",") if name]
    if not names:
        raise _Wrong("say with whom: USER, GROUP or everyone")
    return [people.resolve(name) for name in dict.fromkeys(names)]


def _share(shelf: Store, words: list[str], until: datetime.date | None, as_json: bool) -> None:
    if len(words) < 3 or words[1] != "with":
        raise _Wrong("write: share PATH with USER|GROUP|everyone")
    now = datetime.datetime.now(datetime.UTC)
    if until is not None and until < datetime.date.today():
        raise _Wrong(f"{until.isoformat()} has gone by")
    whos = _with(words[2:])
    for who in whos:
        sharing.check(words[0], who)
    reports = [sharing.share(shelf, words[0], who, until, now) for who in whos]
    _print(
        as_json, [report_model(report) for report in reports], [line for report in reports for line in opened(report)]
    )


def _list(shelf: Store, words: list[str], as_json: bool) -> None:
    if words:
        raise _Wrong(f"list takes no {words[0]!r}")
    rows = sharing.listing(shelf)
    _print(as_json, [listed_model(row) for row in rows], _table(rows) if rows else ["You share nothing."])


def _stop(shelf: Store, words: list[str], everything: bool, as_json: bool) -> None:
    if everything == bool(words) or (len(words) > 1 and words[1] != "with"):
        raise _Wrong("write: share stop PATH [with USER|GROUP|everyone], or share stop --all")
    name = None if everything else words[0]
    whos: list[people.Who | None] = [*_with(words[2:])] if len(words) > 1 else [None]
    reports = [report for who in whos for report in sharing.stop(shelf, name, who)]
    lines = [ended(report) for report in reports]
    _print(as_json, [report_model(report) for report in reports], lines or ["Nothing of that was shared."])


def _expire(shelf: Store, words: list[str], as_json: bool) -> None:
    if words:
        raise _Wrong(f"expire takes no {words[0]!r}")
    reports = sharing.expire(shelf, datetime.date.today())
    _print(as_json, [report_model(report) for report in reports], [ended(report) for report in reports])


def run(words: list[str], file: Path) -> None:
    """Carry out a command line; :raises Mistake: when it cannot be."""
    if not words:
        raise _Wrong("say what to share, and with whom")
    found = _options().parse_intermixed_args(words)
    if found.help:
        _print(False, None, [HELP.rstrip()])
        return
    if os.getuid() == 0:
        raise Mistake("root shares nothing; run it as the person whose files they are")
    command, rest = (found.words or [""])[0], found.words[1:]
    is_command = command in ("list", "stop", "expire") and rest[:1] != ["with"]
    if is_command and found.until is not None:
        raise _Wrong(f"{command} takes no --until")
    if found.all and command != "stop":
        raise _Wrong("--all goes with stop")
    with store.opened(file) as shelf:
        if not is_command:
            _share(shelf, found.words, found.until, found.json)
        elif command == "list":
            _list(shelf, rest, found.json)
        elif command == "stop":
            _stop(shelf, rest, found.all, found.json)
        else:
            _expire(shelf, rest, found.json)


def main() -> None:
    """Run as the command."""
    try:
        run(sys.argv[1:], store.default_file())
    except (Mistake, Hindered) as error:
        sys.stderr.write(f"share: {error}\n")
        sys.exit(2 if isinstance(error, Mistake) else 1)
    except OSError as error:
        sys.stderr.write(f"share: {error.filename or 'your files'}: {error.strerror}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)

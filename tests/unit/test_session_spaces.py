"""What a session knows of its spaces: from a hub that answers over HTTP, and from real file systems."""

import errno
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from labstead_session import quota, room, spaces
from labstead_session.spaces import Away, Memory, Space, Spaces

MIB, GIB = 2**20, 2**30


def test_what_is_nearest_to_its_limit_counts() -> None:
    home = Space("home", "anna", "/home/anna", MIB, 960, GIB, 1000)
    assert home.level == "warning"
    assert home.nearest == "960 of 1,000 files and folders"
    assert home.notice == (
        "Your home is almost full: 960 of 1,000 files and folders. Please delete what is no longer needed."
    )
    group = Space("group", "ocean", "/groups/ocean", GIB, 3, GIB, None)
    assert group.notice == "The folder of the group ocean is full: 1 of 1 GiB. Nothing more can be saved there."
    assert Space("home", "anna", "/home/anna", MIB, 3, GIB, None).nearest == "1 MiB of 1 GiB"


def test_a_refusal_names_the_space_that_the_file_is_in() -> None:
    home = Space("home", "anna", "/home/anna", 2 * GIB, 3, 2 * GIB, None)
    ocean = Space("group", "ocean", "/groups/ocean", GIB, 3, 4 * GIB, None)
    found = Spaces((home, ocean))
    assert found.refusal(Path("/home/anna/a/b.ipynb"), is_open=True) == (
        "Your home is full (2 of 2 GiB): b.ipynb was not saved. It is still open here, and the file is as you last "
        "saved it. Delete something, then save again."
    )
    assert found.refusal(Path("/groups/ocean/b.nc"), is_open=False) == (
        "The folder of the group ocean has too little room left (1 of 4 GiB): b.nc was not written. "
        "Delete something, then save again."
    )
    assert found.refusal(Path("/tmp/b.nc"), is_open=False).startswith("The disk of /tmp is full: b.nc was not written.")
    assert found.of(Path("/home/annabel/x")) is None


def test_a_home_that_takes_nothing_although_it_has_room_says_so() -> None:
    home = Space("home", "anna", "/home/anna", 5 * GIB, 3, 50 * GIB, None, is_out=True)
    assert home.level == "full"
    assert home.notice.startswith("Nothing more fits into your home, though it holds only 5 of 50 GiB: it was filled")
    assert (
        Spaces((home,))
        .refusal(Path("/home/anna/b.ipynb"), is_open=True)
        .startswith("Nothing more fits into your home, though it holds only 5 of 50 GiB: b.ipynb was not saved.")
    )
    unlimited = Space("home", "anna", "/home/anna", is_out=True)
    assert unlimited.notice.startswith("Nothing more fits into your home: it was filled")
    almost = Space("home", "anna", "/home/anna", 49 * GIB, 3, 50 * GIB, None, is_out=True)
    assert almost.notice == "Your home is full: 49 of 50 GiB. Nothing more can be saved there."


# --- the hub

HOME = {
    "kind": "home",
    "name": "anna",
    "path": "/home/anna",
    "used_bytes": 5,
    "used_files": 2,
    "limit_bytes": 10 * MIB,
    "limit_files": None,
}


class Hub:
    """Something that answers like the hub, and writes down what it was asked."""

    def __init__(self) -> None:
        self.status, self.body = 200, json.dumps({"spaces": [HOME]})
        self.asked: list[tuple[str, str | None]] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append((self.path, self.headers["Authorization"]))
                self.send_response(hub.status)
                self.end_headers()
                self.wfile.write(hub.body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.environment = {
            "JUPYTERHUB_API_URL": f"http://127.0.0.1:{self.server.server_port}/hub/api",
            "JUPYTERHUB_API_TOKEN": "s3cret",
            "USER": "anna",
        }


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Give a hub."""
    hub = Hub()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def test_the_hub_is_asked_with_the_sessions_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert spaces.ask_hub(hub.environment) == [Space("home", "anna", "/home/anna", 5, 2, 10 * MIB, None)]
    assert hub.asked == [("/hub/api/labstead/spaces", "token s3cret")]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, '{"message": "later"}'),
        (200, ""),
        (200, "[]"),
        (200, "{}"),
        (200, '{"spaces": 1}'),
        (200, '{"spaces": [{"kind": "moon"}]}'),
        (200, '{"spaces": [{"kind": "home", "used_bytes": "much"}]}'),
        (200, '{"spaces": [{"kind": "home", "used_bytes": -1}]}'),
    ],
)
def test_without_a_right_answer_the_file_system_is_asked(
    hub: Hub, status: int, body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.status, hub.body = status, body
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    with pytest.raises(Away):
        spaces.ask_hub(hub.environment)
    found = spaces.ask(hub.environment)
    assert found.problem
    assert found.home is not None
    assert found.home.path == os.fspath(tmp_path)
    status_of = os.statvfs(tmp_path)
    assert found.home.limit_files == (status_of.f_files or None)
    assert found.home.is_whole_disk


def test_without_a_hub_all_spaces_of_the_session_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    found = spaces.ask({"USER": "anna", "GROUP_FOLDERS": "/var:/nowhere", "SCRATCH": "/tmp"})
    assert [(space.kind, space.name) for space in found.spaces] == [
        ("home", "anna"),
        ("group", "var"),
        ("group", "nowhere"),
        ("scratch", "anna"),
    ]
    assert found.spaces[2].used_bytes is None


def test_what_was_said_is_remembered_for_a_while(hub: Hub) -> None:
    memory = Memory(lambda is_doubted: spaces.ask(hub.environment, is_doubted=is_doubted))
    assert memory.look() == memory.look()
    assert len(hub.asked) == 1
    memory.look(fresh=True)
    assert len(hub.asked) == 2
    hub.status = 503
    assert memory.look(fresh=True).problem
    assert memory.look(fresh=True).problem
    assert len(hub.asked) == 3, "a hub that is away is left alone"


def test_what_was_refused_is_tried_until_something_fits(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on all that somebody has shows in no number of the home."""
    error: OSError | None = OSError(errno.EDQUOT, "")
    tried = []

    def try_(folder: Path) -> OSError | None:
        tried.append(folder)
        return error

    monkeypatch.setattr(room, "tried", try_)
    memory = Memory(lambda is_doubted: spaces.ask(hub.environment, is_doubted=is_doubted))
    assert memory.look().home is not None
    assert tried == [], "nothing is written while nothing was refused"
    for is_doubted in (True, False, False):
        found = memory.look(fresh=True, is_doubted=is_doubted).home
        assert found is not None
        assert found.level == "full"
    error = None
    for _ in range(2):
        found = memory.look(fresh=True).home
        assert found is not None
        assert found.level == ""
    assert tried == [Path("/home/anna")] * 4


# --- the command


@pytest.fixture
def shell(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Let the command run in a session of this hub."""
    for name, value in {**hub.environment, "HOME": os.fspath(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GROUP_FOLDERS", raising=False)
    monkeypatch.delenv("SCRATCH", raising=False)
    return hub


def test_quota_prints_a_table(shell: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    shell.body = json.dumps({"spaces": [{**HOME, "used_bytes": 5 * MIB, "limit_files": 8}]})
    assert quota.run([]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["SPACE", "USED", "LIMIT", "USE", "FILES", "LIMIT", "USE", "PATH"]
    assert line.split() == ["Home", "5", "MiB", "10", "MiB", "50", "%", "2", "8", "25", "%", "/home/anna"]


def test_quota_tells_a_full_home_by_its_exit_code(shell: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    shell.body = json.dumps({"spaces": [{**HOME, "used_bytes": 10 * MIB}]})
    assert quota.run([]) == 1
    assert "Your home is full: 10 of 10 MiB." in capsys.readouterr().err
    assert quota.run(["--json"]) == 1
    assert json.loads(capsys.readouterr().out)["spaces"][0]["level"] == "full"


def test_quota_tells_a_home_that_takes_nothing(
    shell: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "tried", lambda _folder: OSError(errno.EDQUOT, ""))
    shell.body = json.dumps({"spaces": [{**HOME, "used_bytes": MIB}]})
    assert quota.run([]) == 1
    assert "Nothing more fits into your home, though it holds only 1 of 10 MiB" in capsys.readouterr().err


def test_quota_works_while_the_hub_is_down(shell: Hub, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shell.status = 503
    assert quota.run([]) in (0, 1)
    told = capsys.readouterr()
    assert os.fspath(tmp_path) in told.out
    assert "these are the numbers of the disks" in told.err


@pytest.mark.parametrize("words", [["5"], ["set", "5G"], ["--json", "x"]])
def test_quota_refuses_what_it_does_not_know(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert quota.run(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "see `quota --help`" in line

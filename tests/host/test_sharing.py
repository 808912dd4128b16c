"""`share` in sessions: what a colleague can read in theirs, live, and what not; and the same from the host."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.kernel import Kernel
from support.lab import Lab
from support.person import Person


@dataclass
class Colleagues:
    """Somebody who shares, and two who look."""

    owner: Person
    reader: Person
    stranger: Person
    mine: Kernel
    theirs: Kernel
    strange: Kernel

    @property
    def home(self) -> str:
        return f"/home/{self.owner.name}"


@pytest.fixture(scope="module")
def colleagues(lab: Lab, admin: Person) -> Iterator[Colleagues]:
    """Give three people with running sessions."""
    people = [lab.join(stem, admin) for stem in ("olga", "rita", "sven")]
    for person in people:
        person.start()
    yield Colleagues(*people, *(person.kernel() for person in people))  # type: ignore[arg-type]
    for person in people:
        person.stop()


@pytest.fixture
def work(colleagues: Colleagues) -> Iterator[str]:
    """Give a folder with results in a home that is closed."""
    folder = f"{colleagues.home}/project/results"
    colleagues.mine.sh(
        f"mkdir -p {folder} && echo 42 >{folder}/answer && echo own >~/diary && echo own >~/project/draft && "
        "mkdir -p ~/bin"
    )
    yield folder
    colleagues.mine.sh("share stop --all")


def reads(kernel: Kernel, path: str) -> bool:
    return kernel.sh(f"if [ -d {path} ]; then ls {path}; else cat {path}; fi", check=False).returncode == 0


def test_what_is_shared_is_read_in_a_running_session_and_nothing_else(colleagues: Colleagues, work: str) -> None:
    reader, home = colleagues.reader.name, colleagues.home
    assert not reads(colleagues.theirs, f"{work}/answer")
    told = colleagues.mine.out(f"share {work} with {reader}")
    assert f"Open for {reader}: {work}" in told
    assert f"  {home}\n  {home}/project" in told
    assert colleagues.theirs.out(f"cat {work}/answer") == "42"
    assert colleagues.theirs.out(f"ls {work}") == "answer"
    colleagues.mine.sh(f"echo 43 >{work}/later && echo own >~/later")
    assert colleagues.theirs.out(f"cat {work}/later") == "43"
    for place in (
        home,
        f"{home}/diary",
        f"{home}/later",
        f"{home}/project",
        f"{home}/project/draft",
        f"{home}/.bashrc",
    ):
        assert not reads(colleagues.theirs, place), place
    refused = colleagues.theirs.sh(f"echo 44 >{work}/answer", check=False)
    assert refused.returncode != 0
    assert not reads(colleagues.strange, f"{work}/answer")
    colleagues.mine.sh(f"share stop {work}")
    assert not reads(colleagues.theirs, f"{work}/answer")


def test_stop_leaves_every_file_as_it_was(lab: Lab, colleagues: Colleagues, work: str) -> None:
    def rights() -> str:
        script = """
            cd "$1"
            getfacl --recursive --skip-base . 2>/dev/null
            find . -not -path './.*' -printf '%p %m %U %G\\n' | sort
        """
        return str(lab.machine.sh(script, colleagues.home).stdout)

    before = rights()
    for who in (colleagues.reader.name, "everyone"):
        colleagues.mine.sh(f"share {work} with {who}")
    assert rights() != before
    colleagues.mine.sh(f"share stop {work}")
    assert rights() == before


def test_everyone_and_a_group(lab: Lab, colleagues: Colleagues, work: str) -> None:
    colleagues.mine.sh(f"share {work} with everyone")
    assert reads(colleagues.strange, f"{work}/answer")
    assert not reads(colleagues.strange, f"{colleagues.home}/diary")
    colleagues.mine.sh(f"share stop {work}")
    lab.machine.sh(
        'getent group reef || labstead group add reef; labstead group members reef --add "$1,$2"',
        colleagues.owner.name,
        colleagues.reader.name,
    )
    # The group is in sessions from their next start on.
    for person in (colleagues.owner, colleagues.reader):
        person.stop()
        person.start()
    colleagues.mine, colleagues.theirs = colleagues.owner.kernel(), colleagues.reader.kernel()
    colleagues.mine.sh(f"share {work} with reef")
    assert reads(colleagues.theirs, f"{work}/answer")
    assert not reads(colleagues.strange, f"{work}/answer")


def test_a_share_ends_after_its_day_when_the_night_comes(lab: Lab, colleagues: Colleagues, work: str) -> None:
    colleagues.mine.sh(f"share {work} with {colleagues.reader.name} --until $(date +%F)")
    assert reads(colleagues.theirs, f"{work}/answer")
    place = f"{colleagues.home}/.local/share/labstead/shares.json"
    lab.machine.sh(r"""sed -i 's/"until": "[-0-9]*"/"until": "2020-01-01"/' "$1" """, place)
    # Its exit code is for all that it does; mail of others may find no relay here.
    told = lab.machine.run("labstead", "tidy", check=False, timeout=300).stdout
    assert f"No longer shared with {colleagues.reader.name}: {work}" in told
    assert not reads(colleagues.theirs, f"{work}/answer")
    assert colleagues.mine.out("share list") == "You share nothing."


def test_the_same_command_on_the_host(lab: Lab, colleagues: Colleagues, work: str) -> None:
    as_owner = ("runuser", "-u", colleagues.owner.name, "--", "share")
    lab.machine.run(*as_owner, work, "with", colleagues.reader.name)
    assert reads(colleagues.theirs, f"{work}/answer")
    rows = json.loads(colleagues.mine.out("share list --json"))
    assert [(row["path"], row["with"], row["is_there"]) for row in rows] == [(work, colleagues.reader.name, True)]
    refused = lab.machine.run(*as_owner, work, "with", "nobody-at-all", check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert lab.machine.run("share", work, "with", colleagues.reader.name, check=False).returncode == 2


def test_tab_completes_the_command(colleagues: Colleagues, work: str) -> None:
    def completed(line: str) -> list[str]:
        script = f"""
            . /usr/share/bash-completion/bash_completion; _completion_loader share 2>/dev/null || _comp_load share
            compopt() {{ :; }}
            COMP_WORDS=({line})
            COMP_CWORD=$(({len(line.split())} - 1))
            [ "${{COMP_WORDS[-1]}}" != _ ] || COMP_WORDS[-1]=
            _share; printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        return colleagues.mine.out(script).splitlines()

    assert colleagues.reader.name in completed(f"share {work} with {colleagues.reader.name[:6]}")
    assert "everyone" in completed(f"share {work} with _")
    assert completed(f"share {work} wi") == ["with"]
    assert {"list", "stop", "expire"} <= set(completed("share _"))
    assert completed("share list --j") == ["--json"]

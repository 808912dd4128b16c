"""How PAM is asked; the real one answers on a host."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labstead.accounts import pam
from labstead.errors import AccountRefused, Refusal


def answers(monkeypatch: pytest.MonkeyPatch, code: int, text: str = "") -> None:
    monkeypatch.setattr(pam, "_run", lambda _: (0, json.dumps({"code": code, "text": text}) + "\n", ""))


@pytest.mark.parametrize(
    ("code", "refusal", "words"),
    [
        (7, Refusal.WRONG_PASSWORD, "Wrong name or password"),
        (10, Refusal.WRONG_PASSWORD, "Wrong name or password"),
        (11, Refusal.WRONG_PASSWORD, "Too many wrong passwords"),
        (6, Refusal.NOT_ALLOWED, "may not come in"),
        (12, Refusal.LOCKED, "has run out"),
        (13, Refusal.LOCKED, "has expired"),
        (1000, Refusal.NOT_ALLOWED, "by another name"),
        (9, Refusal.FAILED, "no directory"),
        (4, Refusal.FAILED, "no directory"),
    ],
)
def test_what_pam_answers_is_told_as_a_sentence(
    monkeypatch: pytest.MonkeyPatch, code: int, refusal: Refusal, words: str
) -> None:
    answers(monkeypatch, code, "no directory")
    with pytest.raises(AccountRefused, match=words) as caught:
        pam.check("doro", "secret")
    assert caught.value.code is refusal
    assert "secret" not in str(caught.value)


def test_a_right_password_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, 0)
    pam.check("doro", "secret")


@pytest.mark.parametrize("password", ["", "sec\0ret"])
def test_no_password_is_a_wrong_one(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    answers(monkeypatch, 0)
    with pytest.raises(AccountRefused) as caught:
        pam.check("doro", password)
    assert caught.value.code is Refusal.WRONG_PASSWORD


def test_a_check_that_takes_too_long_is_ended_with_what_it_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {mark}\nwait\n")
    script.chmod(0o755)
    monkeypatch.setattr(pam, "_SECONDS", 1.0)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(AccountRefused, match="does the directory answer") as caught:
        pam.check("doro", "secret")
    assert caught.value.code is Refusal.FAILED
    deadline = time.monotonic() + 10
    while Path(f"/proc/{mark.read_text().strip()}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    state = subprocess.run(["ps", "-o", "stat=", mark.read_text().strip()], capture_output=True, text=True, check=False)
    assert state.stdout.strip() in ("", "Z")


def test_a_program_that_fails_says_why_and_lets_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pam, "_run", lambda _: (1, "", "Traceback\nImportError: no libpam\n"))
    with pytest.raises(AccountRefused, match="no libpam") as caught:
        pam.check("doro", "secret")
    assert caught.value.code is Refusal.FAILED

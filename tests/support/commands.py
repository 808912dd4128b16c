"""The commands that a sysadmin types on a host.

The rule: a refusal is in lines for people, whatever was typed, and each exit code is the one that was announced.
"""

import csv
from urllib.parse import urlsplit

import requests

from support.forms import forms_of
from support.lab import Lab
from support.machine import Completed
from support.person import Person


def labstead(lab: Lab, *words: str, code: int = 0, stdin: str = "") -> Completed:
    """Run a command as root and check its exit code."""
    done = lab.machine.run("labstead", *words, check=False, stdin=stdin, timeout=300)
    assert done.returncode == code, f"labstead {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def invite(lab: Lab, name: str) -> str:
    """Make a link with which somebody sets a password, and give it."""
    path = f"/root/link-of-{name}.csv"
    done = labstead(lab, "user", "invite", name, "--output", path)
    assert lab.machine.out("stat", "--format=%U:%G %a", path) == "root:root 600"
    (row,) = csv.DictReader(lab.machine.out("cat", path).splitlines())
    lab.machine.run("rm", path)
    assert row["name"] == name
    assert row["link"] not in done.stdout + done.stderr
    return row["link"]


def set_password(person: Person, link: str, password: str = "") -> requests.Response:
    """Open a link, fill in the form there, and give the answer.

    :param password: in place of the person's own
    """
    path = urlsplit(link).path
    page = person.visit(path)
    (form,) = (form for form in forms_of(page.text) if form.method == "post")
    chosen = password or person.password
    return person.post(path, {**form.fields, "new_password": chosen, "new_password_confirmation": chosen})

"""A day in a home that fills up, in a session: the notebook server is driven over HTTP, as JupyterLab does.

The rule: it needs nothing but the session's own Python and is sent there as text, `python3 -c TEXT KIND LAUNCHER`; what
it finds is one line of JSON, for the test to judge.

KIND is `bytes` or `files`: what is used up. LAUNCHER is the text of labstead's own, with which the server starts, the
first time in a home with room, the second time in a full one.
"""

import errno
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

HOME = Path(os.environ.get("HOME", "/"))
NOTEBOOK = HOME / "notebook.ipynb"
FILLING = HOME / "filling"
SECONDS = 180
"""A guest without virtualisation is slow."""


def content(source: str) -> dict[str, Any]:
    """Give a notebook with one cell."""
    cell = {"cell_type": "code", "id": "a1", "execution_count": None, "metadata": {}, "outputs": [], "source": source}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


class Server:
    """A notebook server, started as a session's is."""

    def __init__(self, launcher: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options = ("--no-browser", f"--port={self.port}", "--IdentityProvider.token=probe", "--ServerApp.root_dir=/")
        command = ["/bin/sh", "-c", launcher, "labstead", "jupyter-lab", *options]
        path = Path(os.environ["XDG_RUNTIME_DIR"], "server.log")
        with path.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=HOME)
        begin = time.monotonic()
        while True:
            try:
                self.ask("GET", "api/status")
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > begin + SECONDS:
                    sys.exit(f"the server does not start: {path.read_text(errors='replace')[-3000:]}")
                time.sleep(0.2)
        self.seconds = time.monotonic() - begin

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Make a request; give the status and what is answered."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": "token probe", "Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=SECONDS) as answer:
                text, status = answer.read(), answer.status
        except urllib.error.HTTPError as error:
            text, status = error.read(), error.code
        return status, json.loads(text) if text else None

    def run(self, code: str) -> str:
        """Run code in a new kernel and give what it prints."""
        # The session has it; this machine's Python need not.
        import websocket

        status, kernel = self.ask("POST", "api/kernels", {"name": "python3"})
        if status != 201:
            return f"no kernel: {status} {kernel}"
        url = f"ws://127.0.0.1:{self.port}/api/kernels/{kernel['id']}/channels?token=probe"
        ident = uuid.uuid4().hex
        header = {"msg_id": ident, "msg_type": "execute_request", "username": "", "session": ident, "version": "5.3"}
        wanted = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        connection = websocket.create_connection(url, timeout=SECONDS)
        message = {"header": header, "parent_header": {}, "metadata": {}, "channel": "shell", "content": wanted}
        connection.send(json.dumps(message))
        printed = ""
        while True:
            reply = json.loads(connection.recv())
            if reply["parent_header"].get("msg_id") != ident:
                continue
            if reply["msg_type"] == "stream":
                printed += reply["content"]["text"]
            elif reply["msg_type"] == "error":
                printed += reply["content"]["evalue"]
            elif reply["msg_type"] == "status" and reply["content"]["execution_state"] == "idle":
                break
        connection.close()
        self.ask("DELETE", f"api/kernels/{kernel['id']}")
        return printed.strip()

    def save(self, source: str) -> tuple[int, Any]:
        """Save the notebook with another cell."""
        model = {"type": "notebook", "format": "json", "content": content(source)}
        return self.ask("PUT", f"api/contents{NOTEBOOK}", model)

    def stop(self) -> None:
        """Stop it as its owner does."""
        self.ask("POST", "api/shutdown")
        self.process.wait(SECONDS)


def fill(kind: str) -> None:
    """Fill the home to the last byte, or the last file."""
    FILLING.mkdir(exist_ok=True)
    full = (errno.ENOSPC, errno.EDQUOT)
    if kind == "bytes":
        for size in (2**20, 2**16, 2**12, 1):
            try:
                with (FILLING / "large").open("ab", buffering=0) as file:
                    while True:
                        file.write(bytes(size))
                        os.fsync(file.fileno())
            except OSError as error:
                if error.errno not in full:
                    raise
    for number in range(10**6):
        try:
            (FILLING / str(number)).write_bytes(b"x" if kind == "bytes" else b"")
        except OSError as error:
            if error.errno not in full:
                raise
            break


def _remains() -> dict[str, Any]:
    names = [path.name for path in HOME.rglob("*")]
    return {
        # On the disk a cell is a list of its lines.
        "cells": ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]],
        "left over": sorted(name for name in names if name.startswith((".~", ".labstead-room"))),
        "put aside": sorted(name for name in names if "corrupt" in name or name.endswith(".bak")),
    }


def _signed() -> int:
    """Count the notebooks that are trusted, as the next session will know them."""
    with sqlite3.connect(HOME / ".local/share/jupyter/nbsignatures.db") as db:
        return int(db.execute("SELECT count(*) FROM nbsignatures").fetchone()[0])


def day(kind: str, launcher: str) -> dict[str, Any]:
    """Work, fill the home, come back the next day, look for what is large, delete it and save."""
    found: dict[str, Any] = {}
    server = Server(launcher)
    theme = "lab/api/settings/@jupyterlab/apputils-extension:themes"
    found["at first"] = {
        "saved": server.save("x = 1")[0],
        "kernel": server.run("print(6 * 7)"),
        "theme": server.ask("PUT", theme, {"raw": '{"theme": "JupyterLab Dark"}'})[0],
    }
    server.stop()
    fill(kind)
    server = Server(launcher)
    status, opened = server.ask("GET", f"api/contents{NOTEBOOK}?content=1")
    refused, reason = server.save("x = 2\n" + "# " + "y" * 20000)
    found["full"] = {
        "seconds until it answers": round(server.seconds, 1),
        "listed": server.ask("GET", f"api/contents{HOME}?content=1")[0],
        "opened": status,
        "cells": [cell["source"] for cell in opened["content"]["cells"]] if status == 200 else opened,
        "checkpoint": server.ask("POST", f"api/contents{NOTEBOOK}/checkpoints", {})[0],
        "restored": server.ask("POST", f"api/contents{NOTEBOOK}/checkpoints/checkpoint")[0],
        "kernel": server.run("print(6 * 7)"),
        "theme": server.ask("GET", theme)[1].get("raw"),
        "new setting": server.ask("PUT", "lab/api/settings/@jupyterlab/terminal-extension:plugin", {"raw": "{}"})[0],
        "layout": server.ask("PUT", "lab/api/workspaces/new", {"data": {}, "metadata": {"id": "new"}})[0],
        "save": [refused, reason.get("message")],
        "remains": _remains(),
        "space": server.ask("GET", "labstead/disk?fresh=1")[1],
    }
    largest = server.ask("GET", f"labstead/disk/largest?by={kind}")[1]["things"]
    found["largest"] = [largest[0]["path"], server.ask("DELETE", "labstead/disk/largest", {"path": FILLING.name})[0]]
    found["after"] = {
        "space": server.ask("GET", "labstead/disk?fresh=1")[1],
        "saved": server.save("x = 3")[0],
        "kernel": server.run("print(6 * 7)"),
        "remains": _remains(),
        "signed": _signed(),
    }
    server.stop()
    shutil.rmtree(FILLING, ignore_errors=True)
    return found


def verdict(found: dict[str, Any]) -> list[str]:
    """Say what of a day was not as it should be."""
    full, after = found["full"], found["after"]
    home = next(space for space in full["space"]["spaces"] if space["kind"] == "home")
    later = next(space for space in after["space"]["spaces"] if space["kind"] == "home")
    checks = {
        "work at first": found["at first"] == {"saved": 201, "kernel": "42", "theme": 204},
        "the file browser": full["listed"] == 200,
        "opening a notebook": full["opened"] == 200 and full["cells"] == ["x = 1"],
        "a checkpoint": full["checkpoint"] == 201,
        "going back to a checkpoint, or the refusal": full["restored"] in (204, 507),
        "a kernel in a full home": full["kernel"] == "42",
        "the theme of the day before": full["theme"] == '{"theme": "JupyterLab Dark"}',
        "settings in a full home": (full["new setting"], full["layout"]) == (204, 204),
        "the refusal": full["save"][0] == 507 and "was not saved" in full["save"][1],
        "the old notebook, whole": full["remains"] == {"cells": ["x = 1"], "left over": [], "put aside": []},
        "the notice": home["level"] == "full" and home["notice"].startswith("Your home is full"),
        "the largest thing": found["largest"][0].startswith(FILLING.name) and found["largest"][1] == 200,
        "room after deleting": later["level"] != "full",
        "the saved notebook": after["saved"] == 200 and after["remains"]["cells"] == ["x = 3"],
        "trust in what was saved before and after": after["signed"] >= 2,
        "a kernel later": after["kernel"] == "42",
    }
    return [name for name, fine in checks.items() if not fine]


if __name__ == "__main__":
    print(json.dumps(day(sys.argv[1], sys.argv[2])))

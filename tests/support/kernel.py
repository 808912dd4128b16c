"""A kernel of somebody's session, reached as JupyterLab does: over a WebSocket through the public address."""

import asyncio
import json
import ssl
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import requests
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Origin

if TYPE_CHECKING:
    from support.person import Person


class CodeFailed(AssertionError):
    """Code in a kernel ended with an exception."""


class Unreachable(OSError):
    """The kernel is not reached."""


class KernelDied(Exception):
    """The kernel's process ended while it ran the code."""


class Kernel:
    """One kernel; it lives on between calls, whatever becomes of the connection.

    :param person: whose session it is in
    :param ident: its id
    """

    def __init__(self, person: "Person", ident: str) -> None:
        self._person = person
        self._path = f"/user/{person.name}/api/kernels/{ident}/channels"

    def _connect(self) -> connect:
        # The asyncio client: the one with threads reads and writes one TLS connection at the same time, which OpenSSL
        # does not allow; one of a hundred handshakes was lost.
        url = self._person.url + self._path
        cookie = requests.Request("GET", url, cookies=self._person.http.cookies).prepare().headers["Cookie"]
        return connect(
            url.replace("https:", "wss:", 1),
            ssl=ssl.create_default_context(cafile=self._person.ca),
            origin=Origin(self._person.url),
            additional_headers={"Cookie": cookie},
            open_timeout=None,
            close_timeout=5,
            max_size=None,
            proxy=None,
        )

    def run(self, code: str, seconds: float = 60) -> str:
        """Run code and give what it prints.

        :raises CodeFailed: when it ends with an exception
        :raises KernelDied: when the kernel does not survive it
        :raises Unreachable: when the kernel is not reached, or takes longer
        """
        # In a thread: a test with a browser has an event loop in this one.
        with ThreadPoolExecutor(1) as thread:
            try:
                return thread.submit(asyncio.run, self._run(code, seconds)).result()
            except (OSError, WebSocketException) as error:
                raise Unreachable(f"kernel of {self._person.name}: {error!r}") from error

    async def _run(self, code: str, seconds: float) -> str:
        ident = uuid.uuid4().hex
        header = {"msg_id": ident, "msg_type": "execute_request", "username": "", "session": ident, "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
        message = {"header": header, "parent_header": {}, "metadata": {}, "channel": "shell", "content": content}
        printed = ""
        async with asyncio.timeout(seconds), self._connect() as connection:
            await connection.send(json.dumps(message))
            while True:
                reply = json.loads(await connection.recv())
                kind, content = reply["msg_type"], reply["content"]
                if kind == "status" and content["execution_state"] in ("restarting", "autorestarting", "dead"):
                    raise KernelDied(content["execution_state"])
                if reply["parent_header"].get("msg_id") != ident:
                    continue
                if kind == "stream":
                    printed += content["text"]
                elif kind == "error":
                    raise CodeFailed(f"{content['ename']}: {content['evalue']}\n{printed}")
                elif kind == "status" and content["execution_state"] == "idle":
                    return printed

    def shut_down(self) -> None:
        """End it, as JupyterLab does where somebody chooses that."""
        answer = self._person.api("DELETE", self._path.removesuffix("/channels"))
        assert answer.status_code == 204, f"end of a kernel of {self._person.name}: {answer.status_code}"

    def value(self, expression: str, seconds: float = 60) -> Any:
        """Give the value of an expression, as far as JSON knows it."""
        return json.loads(self.run(f"import json as _json\nprint(_json.dumps({expression}))", seconds))

    def sh(self, script: str, *, check: bool = True, seconds: float = 60) -> "subprocess.CompletedProcess[str]":
        """Run a piece of bash in the session."""
        code = f"""
import json as _json, subprocess as _subprocess
_done = _subprocess.run(["bash", "-c", {script!r}], capture_output=True, text=True, timeout={seconds})
print(_json.dumps([_done.returncode, _done.stdout, _done.stderr]))
"""
        returncode, stdout, stderr = json.loads(self.run(code, seconds + 5))
        assert not check or returncode == 0, f"{script}: exit code {returncode}\n{stdout}{stderr}"
        return subprocess.CompletedProcess(script, returncode, stdout, stderr)

    def out(self, script: str) -> str:
        """Run a piece of bash in the session and give what it prints."""
        return self.sh(script).stdout.strip()

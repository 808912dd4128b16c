"""The spawner: a DockerSpawner whose containers are the contract's.

The one rule: a container is asked for only after the accounts service has said who the user is, and exactly as
`labstead.contract` makes it.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from docker.errors import APIError
from dockerspawner import DockerSpawner
from jupyterhub.spawner import SpawnException
from traitlets import Instance

from labstead import contract, identity, seccomp
from labstead.accounts.client import Client
from labstead.compute import session as compute
from labstead.compute import tls
from labstead.errors import LabsteadError
from labstead.relay.client import Client as Relay
from labstead.settings import Sessions

GATE_SOCKET = "/run/labstead/gate.sock"

_DOCKER_IS_AWAY = 503
"""What the gate answers while Docker does not."""
_TELL = "The machine could not start your session; please tell an administrator."


_CONNECT_SECONDS = 0.05
_LOOK_SECONDS = 1.0
"""How often to try the port of a starting session, and to look whether its container still runs."""

_RELAY_SECONDS = 10.0
"""How long the end of a session may take longer for its Dask jobs."""
_relay_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="relay")
"""Of their own: a relay that hangs must not take those with which sessions start."""


async def _listens(ip: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            _, writer = await asyncio.open_connection(ip, port)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    return True


class LabsteadSpawner(DockerSpawner):  # type: ignore[misc]
    """Start a user's session as that user."""

    sessions = Instance(Sessions, help="The sessions' settings, sessions.yml.").tag(config=True)

    accounts = Client()
    relay = Relay(timeout=_RELAY_SECONDS)

    def _object_name_default(self) -> str:
        return contract.container_name(self.user.name)

    async def poll(self) -> Any:
        """Tell whether the session runs.

        While Docker or the gate restarts nobody can know; containers live on (live-restore), so the answer is yes.
        """
        try:
            return await super().poll()
        except APIError as error:
            if error.status_code != _DOCKER_IS_AWAY:
                raise
        except requests.RequestException as error:
            self.log.warning("the gate does not answer: %s", error)
        self.log.warning("nobody can say whether %s runs; it is taken to be running", self.container_name)
        return None

    async def start(self) -> tuple[str, int]:
        """Start the session and give its address once somebody listens there.

        JupyterHub looks at growing intervals whether a server answers, and finds it up to a third late; a connection
        each 50 ms costs little and finds it at once.
        """
        try:
            ip, port = await super().start()
        except APIError as error:
            raise SpawnException(
                _TELL,
                reason="docker",
                log_message=f"Docker or the gate: {error}",
            ) from error
        deadline = time.monotonic() + self.http_timeout
        next_look = time.monotonic() + _LOOK_SECONDS
        while not await _listens(ip, port) and time.monotonic() < deadline:
            if time.monotonic() > next_look:
                if await self.poll() is not None:
                    raise SpawnException(
                        "Your session ended right after its start; please tell an administrator.", reason="ended"
                    )
                next_look = time.monotonic() + _LOOK_SECONDS
            await asyncio.sleep(_CONNECT_SECONDS)
        # Whoever locks an account stops what runs; what was still starting then ends here.
        try:
            problem = await self.authenticator.problem_with(self.user.name)
        except LabsteadError as error:
            raise SpawnException(f"Your session cannot start: {error}.", reason="account") from error
        if problem:
            raise SpawnException(problem, reason="account")
        return ip, port

    async def create_object(self) -> Any:
        """Ask the gate for the container of this user's session."""
        try:
            person = await asyncio.to_thread(self.accounts.open_session, self.user.name)
        except LabsteadError as error:
            raise SpawnException(f"Your session cannot start: {error}.", reason="account") from error
        try:
            profile = seccomp.load()
        except LabsteadError as error:
            raise SpawnException(_TELL, reason="seccomp", log_message=str(error)) from error
        roots = self.sessions.group_root, self.sessions.scratch_root
        person = await asyncio.to_thread(identity.with_folders, person, *roots)
        found = await self.docker("inspect_image", self.image)
        image_spec = f"{self.image}@{found['Id']}"
        environment = (
            self.get_env()
            | compute.environment(person, found["Id"], self.sessions)
            | contract.environment(person, image_spec, self.sessions)
        )
        if self.sessions.compute is not None:
            environment["LABSTEAD_TLS"] = await asyncio.to_thread(tls.pem_bundle, person.name)
        body = contract.container(
            person=person,
            image=self.image,
            cmd=contract.command([*await self.get_command(), f"--FileContentsManager.preferred_dir={person.home}"]),
            env=[f"{name}={value}" for name, value in sorted(environment.items())],
            settings=self.sessions,
            profile=profile,
        )
        return await self.docker("create_container_from_config", body, self.container_name)

    async def end_dask(self) -> None:
        """End the Dask jobs of a session that has ended; they are of no use without the scheduler in it.

        JupyterHub's `post_stop_hook`: it comes after each end of a server, be it asked for, by itself, or while the
        hub was down, but not when the hub restarts. Until it is done no new session of this user starts, whose jobs
        these would look like. What fails here is tried again by `labstead cull`.
        """
        try:
            async with asyncio.timeout(_RELAY_SECONDS):
                loop = asyncio.get_running_loop()
                ended = await loop.run_in_executor(_relay_threads, self.relay.end, self.user.name, "dask")
        except (LabsteadError, TimeoutError) as error:
            why = error if isinstance(error, LabsteadError) else f"the relay did not answer in {_RELAY_SECONDS:.0f} s"
            self.log.warning("Dask jobs of %s may still run: %s", self.user.name, why)
            return
        if ended:
            self.log.info("%d Dask jobs of %s ended with the session", ended, self.user.name)

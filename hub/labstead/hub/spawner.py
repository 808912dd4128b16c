"""The spawner: a DockerSpawner whose containers are the contract's.

The one rule: a container is asked for only after the accounts service has said who the user is, and exactly as
`labstead.contract` makes it.
"""

import asyncio
from typing import Any

from docker.errors import APIError
from dockerspawner import DockerSpawner
from traitlets import Instance

from labstead import contract
from labstead.accounts.client import Client
from labstead.errors import LabsteadError
from labstead.settings import Sessions

GATE_SOCKET = "/run/labstead/gate.sock"

_DOCKER_IS_AWAY = 503
"""What the gate answers while Docker does not."""


class SessionRefused(Exception):
    """A session that cannot start, with the reason where JupyterHub shows it to the user."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.jupyterhub_message = message


class LabsteadSpawner(DockerSpawner):  # type: ignore[misc]
    """Start a user's session as that user."""

    sessions = Instance(Sessions, help="The sessions' settings, sessions.yml.").tag(config=True)

    accounts = Client()

    def _object_name_default(self) -> str:
        return contract.container_name(self.user.name)

    async def poll(self) -> Any:
        """Tell whether the session runs.

        While Docker restarts nobody can know; containers live on (live-restore), so the answer is that it runs.
        """
        try:
            return await super().poll()
        except APIError as error:
            if error.status_code == _DOCKER_IS_AWAY:
                self.log.warning("Docker does not answer; %s is taken to be running", self.container_name)
                return None
            raise

    async def create_object(self) -> Any:
        """Ask the gate for the container of this user's session."""
        try:
            person = await asyncio.to_thread(self.accounts.open_session, self.user.name)
        except LabsteadError as error:
            raise SessionRefused(f"Your session cannot start: {error}.") from error
        found = await self.docker("inspect_image", self.image)
        image_spec = f"{self.image}@{found['Id']}"
        environment = self.get_env() | contract.environment(person, image_spec, self.sessions)
        body = contract.container(
            person=person,
            image=self.image,
            cmd=contract.command(await self.get_command()),
            env=[f"{name}={value}" for name, value in sorted(environment.items())],
            settings=self.sessions,
        )
        return await self.docker("create_container_from_config", body, self.container_name)

"""What homes and group folders take up, as `labstead tidy` measured it last.

The one rule: it is what was measured, with the time when; nothing here is a limit.
"""

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

FILE = Path("/var/lib/labstead/usage.json")


class Usage(BaseModel):
    """usage.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    measured_at: datetime | None = None
    """None: never."""
    homes: dict[str, int] = {}
    """Bytes, by person."""
    groups: dict[str, int] = {}
    """Bytes, by group."""


def read(path: Path = FILE) -> Usage:
    """Read what was measured; nothing where nothing was, or where it cannot be read."""
    try:
        return Usage.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return Usage()

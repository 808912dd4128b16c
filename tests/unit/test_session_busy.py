"""What counts as activity of a session while its cells print nothing."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from labstead_session import busy


def server(*kernels: Any) -> Any:
    known = dict(enumerate(kernels))
    manager = SimpleNamespace(list_kernel_ids=lambda: list(known), get_kernel=known.__getitem__)
    return SimpleNamespace(
        kernel_manager=manager, web_app=SimpleNamespace(settings={"last_activity_times": {"terminals": 1}})
    )


def kernel(state: str = "", hours: float = 0.1) -> SimpleNamespace:
    if not state:
        return SimpleNamespace()  # one that has not said anything yet
    return SimpleNamespace(execution_state=state, last_activity=datetime.now(UTC) - timedelta(hours=hours))


@pytest.mark.parametrize(
    ("kernels", "is_active"),
    [
        ([], False),
        ([("idle",)], False),
        ([("idle",), ("busy", 10)], True),
        ([("busy", 71.9)], True),
        ([("busy", 72.1)], False),
        ([("starting",)], False),
        ([()], False),
    ],
)
def test_a_kernel_that_computes_is_activity_within_a_maximum(kernels: list[tuple[Any, ...]], is_active: bool) -> None:
    jupyter = server(*(kernel(*about) for about in kernels))
    before = datetime.now(UTC)
    busy.note(jupyter)
    times = jupyter.web_app.settings["last_activity_times"]
    assert times.pop("terminals") == 1
    assert list(times) == (["labstead_kernels"] if is_active else [])
    assert all(at >= before for at in times.values())

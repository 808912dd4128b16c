"""Run the module of the same name on the host and say every finding in a line of its own.

The rule: all findings are shown at once, and the play of a host with findings ends here, before any change.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class ActionModule(ActionBase):
    """Report what `check_machine` found."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with a short message after one line for each finding."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(self._execute_module(module_args=self._task.args, task_vars=task_vars))
        findings = result.get("findings", [])
        for finding in findings:
            Display().error(f"machine: {task_vars['inventory_hostname']}: {finding}", wrap_text=False)
        if findings:
            result.update(failed=True, msg=f"{len(findings)} to put right on this machine; nothing was changed")
        return result

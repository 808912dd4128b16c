"""Run the modules that look at the host and say every finding in a line of its own.

The rule: all findings are shown at once, and the play of a host with findings ends here, before any change.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class ActionModule(ActionBase):
    """Report what `check_machine` found, `check_disks` with the argument `disks`, and the findings in `slurm`."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with a short message after one line for each finding."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        words = {key: value for key, value in self._task.args.items() if key not in ("disks", "slurm")}
        disks = self._execute_module("check_disks", module_args=self._task.args["disks"], task_vars=task_vars)
        result.update(self._execute_module("check_machine", module_args=words, task_vars=task_vars))
        if disks.get("failed") or result.get("failed"):
            return disks if disks.get("failed") else result
        result["disks"] = disks["disks"]
        result["findings"] += disks["findings"] + self._task.args["slurm"]
        for finding in result["findings"]:
            Display().error(f"machine: {task_vars['inventory_hostname']}: {finding}", wrap_text=False)
        if result["findings"]:
            result.update(
                failed=True, msg=f"{len(result['findings'])} to put right on this machine; nothing was changed"
            )
        return result

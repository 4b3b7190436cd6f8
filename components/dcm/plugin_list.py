"""What `plugin ls` and `plugin why` say: what is installed, what runs where, and what came of each.

The plugin manager of this process knows what is installed; what became of a controller is told by the processes that
run it (`plugin_state`) and by the parent, when such a process ends.
"""

from __future__ import annotations

import difflib
from typing import Any

import msgspec

from ...controllers.options import has_work
from ...errors import NotFound
from ...plugins.manager import PluginManager

CONTROLLERS = "covey.controllers"
ALL_SHIPPED = "controllers"


class Told(msgspec.Struct, frozen=True):
    """What a process said of a plugin it runs."""

    state: str
    reason: str = ""
    classes: tuple[str, ...] = ()


class PluginList:
    """All plugins of a node."""

    def __init__(self, manager: PluginManager, settings: dict[str, Any]) -> None:
        self._manager = manager
        self._told: dict[str, Told] = {}
        self._disabled = {name for name, each in settings.items() if each.get("enabled") is False}
        ours = manager.candidates(CONTROLLERS)
        self._idle = {one.name for one in ours if one.shipped and not has_work(one, settings)}

    def processes(self) -> list[str]:
        """Return the names of the processes that run controllers: one for all of covey's own, one for each other."""
        found = [each for each in self._manager.loadable(CONTROLLERS) if each.name not in self._disabled]
        shared = [ALL_SHIPPED] if any(each.shipped for each in found) else []
        return [*shared, *(f"controller:{each.name}" for each in found if not each.shipped)]

    def tell(self, name: str, told: Told) -> None:
        """A process says what became of a plugin."""
        self._told[name] = told

    def forget(self) -> None:
        """The node left the cluster: nothing runs any more."""
        self._told.clear()

    def lines(self, crashed: dict[str, str], running: list[str]) -> list[dict[str, Any]]:
        """Return INTERFACES `plugin ls`. `crashed` and `running` are about processes, by name."""
        found = []
        for status in self._manager.status():
            state: str = status.state
            reason, classes = status.reason, tuple[str, ...]()
            told = self._told.get(status.name) if status.group == CONTROLLERS else None
            process = f"controller:{status.name}"
            if status.group == CONTROLLERS and status.name in self._disabled:
                state, reason = "blocked", "`enabled: false` in this node's YAML"
            elif status.group == CONTROLLERS and status.name in self._idle and status.state == "found":
                reason = "nothing to do: this node's YAML has no options for it"
            elif told is not None and status.state in ("found", "running"):
                state, reason, classes = told.state, told.reason, told.classes
                if state == "failed" and process in crashed:
                    reason += f" (its process ended last with: {crashed[process]})"
            elif status.group == CONTROLLERS and process in crashed:
                state, reason = "failed", f"its process ended: {crashed[process]}"
            elif status.group == CONTROLLERS and status.state == "found":
                started = process in running or ALL_SHIPPED in running
                reason = "it has not said yet that it runs" if started else "not started: the node is not online"
            found.append(
                {
                    "name": status.name,
                    "group": status.group,
                    "package": status.package,
                    "version": status.version,
                    "state": state,
                    "classes": list(classes),
                    "reason": reason,
                }
            )
        return found

    def why(self, name: str, crashed: dict[str, str], running: list[str]) -> dict[str, Any]:
        """Return the whole story of a plugin: its line of the list, and what the manager knows of it."""
        lines = self.lines(crashed, running)
        found = next((line for line in lines if line["name"] == name), None)
        if found is None:
            near = difflib.get_close_matches(name, [line["name"] for line in lines], n=1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise NotFound(
                f"this node has no plugin {name!r}",
                f"{meant}`covey plugin ls` lists them; what was installed since is found when its daemon starts again",
            )
        return {**found, "story": self._manager.why(name).splitlines()}

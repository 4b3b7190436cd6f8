"""What `plugin ls` and `plugin why` say: what is installed, what runs where, and what came of each.

The plugin manager of this process knows what is installed; what became of a controller is told by the processes that
run it (`plugin_state`) and by the parent, when such a process ends.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import msgspec

from ...config.wording import suggestion
from ...controllers.options import has_work
from ...errors import NotFound, Refused
from ...plugins.manager import PluginManager
from .definitions import Blocked

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
        self.blocked: Mapping[str, Blocked] = {}
        """What may not run here, on somebody's word."""
        self._disabled = {name for name, each in settings.items() if each.get("enabled") is False}
        ours = [one for one in manager.candidates(CONTROLLERS) if one.shipped]
        self._shipped = {one.name for one in ours}
        self._idle = {one.name for one in ours if not has_work(one, settings)}

    def processes(self) -> list[str]:
        """Return the names of the processes that run controllers: one for all of covey's own, one for each other."""
        away = self._disabled | self.blocked.keys()
        found = [each for each in self._manager.loadable(CONTROLLERS) if each.name not in away]
        return list(dict.fromkeys(self.process_of(each.name) for each in found))

    def process_of(self, name: str) -> str:
        """Return the name of the process that runs a controller."""
        return ALL_SHIPPED if name in self._shipped else f"controller:{name}"

    def names(self) -> list[str]:
        """Return the names of the controllers that are installed."""
        return [each.name for each in self._manager.candidates(CONTROLLERS)]

    def must_be_controller(self, name: str) -> None:
        """Raise NotFound, or Refused for a plugin of another kind, unless that is an installed controller."""
        names = self.names()
        if name in names:
            return
        if name in [each.name for each in self._manager.candidates()]:
            raise Refused(f"{name} is no controller, and only controllers can be blocked", "uninstall its package")
        raise NotFound(f"no controller {name!r} is installed here", suggestion(name, names))

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
            if status.group == CONTROLLERS and status.name in self.blocked and status.state != "shadowed":
                state, reason = "blocked", _blocked(self.blocked[status.name])
            elif status.group == CONTROLLERS and status.name in self._disabled:
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


def _blocked(found: Blocked) -> str:
    who = "somebody" if found.uid is None else f"user {found.uid}"
    return f"{found.reason} (blocked by {who})"

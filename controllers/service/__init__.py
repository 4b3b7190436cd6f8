"""The controller of class `Service`: units of systemd, by `systemctl`, which every machine with systemd has.

One call tells of all units, and serves every reading within `FRESH`. A machine without systemd has no resource of this
class, and the controller's reason says so. Odd: times are taken from the monotonic clock, since the others are printed
for people; a machine that was suspended meanwhile shows a start too late by that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from ...config.findings import quoted
from ...config.node import Settings
from ...config.wording import refusal
from ...errors import ResourceNotFound, Unsupported
from ..contract import Controller, Failed, Found, Resource, action

RUNS = Path("/run/systemd/system")
"""There when the system was booted by systemd (sd_booted(3))."""

FRESH = 2.0
"""Seconds for which what systemd said is good: a poll of some hundred units takes less."""

LOOK = 4.0
"""Seconds that systemd may take to tell; a reading counts as failed after 5."""

REPLY = 0.5
"""Seconds before an action's deadline at which it is no longer waited for, so that the reason still arrives."""

PROPERTIES = {
    "Id": "Name",
    "Description": "Description",
    "LoadState": "LoadState",
    "ActiveState": "ActiveState",
    "SubState": "SubState",
    "UnitFileState": "Enabled",
    "MainPID": "MainPid",
    "MemoryCurrent": "Memory",
    "NRestarts": "Restarts",
    "ActiveEnterTimestampMonotonic": "StartTime",
}
"""What is asked of systemd, and our attribute for it."""

_UNSET = 2**64 - 1  # what systemd prints for a number that is not set, besides "[not set]"


def _unit(written: str) -> str:
    if written.startswith("-") or any(letter.isspace() or letter == "/" for letter in written):
        raise refusal("bad_value", f"{quoted(written)} is no name of a unit", "write ssh.service, or a pattern: nginx*")
    return written if written.endswith((".service", "*")) else f"{written}.service"


class ServiceOptions(Settings):
    """Which services are resources."""

    units: tuple[Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_unit)], ...] = Field(
        default=(),
        description="Units by name, there or not, or by a pattern of the shell over those that systemd has loaded. "
        "Default: every loaded service that is active, or started at boot.",
        examples=[["ssh.service", "nginx*"]],
    )


class Service(Controller):
    """Services of systemd."""

    description = "service.yaml"
    options: ServiceOptions

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looked = -FRESH
        self._units: dict[str, dict[str, Any]] = {}

    def discover(self) -> Iterator[Found]:
        """The units that the options name, else those that matter. Raises Unsupported where systemd does not run."""
        if not RUNS.is_dir():
            raise Unsupported("systemd does not run here, so there is no service", "`enabled: false` ends this note")
        found = {
            name: unit
            for name, unit in self._show(self.options.units or ("*.service",)).items()
            if self.options.units or unit["ActiveState"] == "active" or unit["Enabled"] == "enabled"
        }
        with self._lock:
            self._units, self._looked = found, time.monotonic()
        for name, unit in found.items():
            yield Found("Service", key={"Name": name}, Description=unit["Description"])

    def read(self, resource: Resource) -> dict[str, Any]:
        """What systemd says of one unit."""
        name = resource.key["Name"]
        with self._lock:
            if name not in self._units or time.monotonic() - self._looked >= FRESH:
                # By name, since systemd forgets a unit that is not active, and reads it again when it is named.
                self._units, self._looked = self._show({*self._units, name}), time.monotonic()
            found = self._units.get(name)
        if found is None:
            raise ResourceNotFound(f"systemd calls no unit {name}", "discover again")
        return {attribute: value for attribute, value in found.items() if attribute not in ("Name", "Description")}

    @action("Service", "Start")
    def start(self, resource: Resource) -> None:
        """Start the unit."""
        self._tell("start", resource, 120.0)

    @action("Service", "Stop")
    def stop(self, resource: Resource) -> None:
        """Stop the unit."""
        self._tell("stop", resource, 120.0)

    @action("Service", "Restart")
    def restart(self, resource: Resource) -> None:
        """Stop and start the unit."""
        self._tell("restart", resource, 240.0)

    @action("Service", "Reload")
    def reload(self, resource: Resource) -> None:
        """Have the unit read its configuration again."""
        self._tell("reload", resource, 120.0)

    # --- inside ---------------------------------------------------------------------------------------------

    def _show(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What systemd says now of the units of these names and patterns."""
        done = self._systemctl("show", f"--property={','.join(PROPERTIES)}", "--", *sorted(names), timeout=LOOK)
        return units(done, time.time() - time.monotonic())

    def _tell(self, verb: str, resource: Resource, deadline: float) -> None:
        try:
            self._systemctl(verb, "--", resource.key["Name"], timeout=deadline - REPLY)
        finally:
            self._looked = -FRESH

    def _systemctl(self, verb: str, *words: str, timeout: float) -> str:
        from .. import commands

        command = ["systemctl", "--no-pager", "--no-ask-password", verb, *words]
        done = commands.run(command, env=commands.environment(self.node) | {"SYSTEMD_COLORS": "0"}, timeout=timeout)
        if done.code != 0:
            raise Failed(f"systemctl {verb}: {done.reason}")
        return done.output


def units(printed: str, began: float) -> dict[str, dict[str, Any]]:
    """Return the attributes of each unit by its name, from `systemctl show`.

    `began`: what the clock showed when the monotonic clock was 0, in seconds of the epoch.
    """
    found: dict[str, dict[str, Any]] = {}
    for block in printed.split("\n\n"):
        said = dict(line.partition("=")[::2] for line in block.splitlines())
        if not said.get("Id", "").endswith(".service"):
            continue
        values: dict[str, Any] = {name: said.get(theirs) or None for theirs, name in PROPERTIES.items()}
        for name in ("MainPid", "Memory", "Restarts", "StartTime"):
            values[name] = _number(values[name])
        values["MainPid"] = values["MainPid"] or None
        active, since = values["ActiveState"] == "active", values["StartTime"]
        values["StartTime"] = datetime.fromtimestamp(began + since / 1e6, UTC) if active and since else None
        found[values["Name"]] = values
    return found


def _number(written: str | None) -> int | None:
    number = int(written) if written is not None and written.isdecimal() else None
    return None if number == _UNSET else number

"""The smallest useful controller: the load average of a node, one resource per window."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from covey import Controller, Failed, Found, Resource

WINDOWS = (1, 5, 15)


class LoadAverage(Controller):
    """Mean number of tasks that want to run."""

    description = "loadavg.yaml"

    def discover(self) -> Iterator[Found]:
        """There are always the same three."""
        for minutes in WINDOWS:
            yield Found("LoadAverage", key={"Minutes": minutes}, Processors=os.cpu_count())

    def read(self, resource: Resource) -> dict[str, Any]:
        """The load now, and how much that is for each processor."""
        minutes = resource.key["Minutes"]
        if minutes not in WINDOWS:
            raise Failed(f"there is no load average over {minutes} minutes", f"there are {WINDOWS}")
        load = os.getloadavg()[WINDOWS.index(minutes)]
        return {"Load": load, "LoadPerProcessor": load / (os.cpu_count() or 1)}

"""How patient the Resource Manager is: deadlines, intervals and bounds, each with unit and reason.

Knows nothing of YAML: the DCM hands over what the node's file says (`controllers.<name>.poll`), already in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Settings(msgspec.Struct, frozen=True):
    """All durations are seconds."""

    discover_deadline: float = 10.0
    """A controller that has not answered by then is reported as failed (SPEC 6.4)."""

    appear_deadline: float = 30.0
    """For a controller's process to load its package and serve it; two deadlines of the loader and some more."""

    describe_deadline: float = 10.0
    """For the list of its classes; as long as a discovery, because a first call may import slow libraries."""

    read_deadline: float = 5.0
    """For the dynamic attributes of one resource. A longer one would let one dead mount hold a whole poll."""

    change_deadline: float = 10.0
    """For a controller to set attributes, define or remove a resource; an action has the deadline that it declares."""

    change_margin: float = 2.0
    """Seconds that a controller's process has beyond that to say where it hangs, before it counts as silent."""

    late_changes: int = 100
    """Changes past their deadline whose answers are still taken. 0 to 10 000; each is a few hundred bytes."""

    write_deadline: float = 10.0
    """After that a transaction without an answer is sent again under the same request id."""

    peer_deadline: float = 2.0
    """How long a list waits for another node's dynamic attributes before it goes on without them."""

    join_wait: float = 0.5
    """How long a join waits for discovery; what comes later is written when it comes (SPEC 6.4)."""

    reads_at_once: int = 4
    """Reads under way at one controller, so that one slow resource does not stand before all others. 1 to 100."""

    backoff_first: float = 1.0
    """Wait after the first failure; doubled with each further one."""

    backoff_longest: float = 60.0
    """Longest wait: a controller that heals is seen within a minute, one that does not costs one call a minute."""

    most_resources: int = 5000
    """Resources one discovery may find; more is a flood and a failure. They are written as one transaction."""

    watch_ring: int = 10_000
    """Changes kept for watchers; with 5000 resources that all change, two polls of them. 1 to 1 000 000."""

    watch_kept: float = 60.0
    """How long after a watcher's question changes are kept for its next one; with nobody watching they cost nothing."""

    watch_events: int = 500
    """Changes in one answer to a watcher: at 2 KiB each a message of a megabyte."""

    ask_again: float = 2.0
    """Pause before a peer that did not tell its class versions is asked again."""

    polls: Mapping[str, float] = {}
    """By controller: the poll interval the node's YAML sets, over whatever its classes declare."""

    def backoff(self, failures: int) -> float:
        """Return the wait after that many failures in a row (1 or more)."""
        return min(self.backoff_first * 2.0 ** min(failures - 1, 30), self.backoff_longest)


def from_local(settings: Mapping[str, Any]) -> Settings:
    """Take what concerns resources from the settings part of the local configuration."""
    controllers = settings.get("controllers") or {}
    polls = {
        name: float(options["poll"])
        for name, options in controllers.items()
        if isinstance(options, Mapping) and options.get("poll") is not None
    }
    return Settings(polls=polls)

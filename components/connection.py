"""The bus as programs get it from `covey.connect`: a plain client, and the groups that Group Services adds to it.

The bus itself knows no component; what a component adds for programs is joined to the client here.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from ..bus.client import Client, find_endpoint, opened
from .groups.client import Group, GroupEvents


class Connection(Client):
    """One party on the bus, with everything of `Client`."""

    def group(self, name: str, state: Any = b"", voted: Iterable[str] = ()) -> Group:
        """Return a group for `async with`: joined on entry, left on exit.

        When it is new, `state` is its value, and its members vote on each of `voted`: `join`, `expel`, `state`.
        """
        return Group(self, name, state, voted)

    def group_events(self, name: str) -> GroupEvents:
        """Return an async iterator over what happens in a group from now on, for one who does not join it."""
        return GroupEvents(self, name)


@asynccontextmanager
async def connect(state: str | os.PathLike[str] | None = None, *, name: str = "") -> AsyncIterator[Connection]:
    """Connect to the daemon of a state folder (default: $COVEY_STATE or /var/lib/covey); raises NoDaemon.

    `name` is the party's name on the bus; by default the broker gives one.
    """
    async with opened(Connection(find_endpoint(state), name)) as connection:
        yield connection

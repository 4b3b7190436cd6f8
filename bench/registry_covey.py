"""covey's parties in bench/registry.py: a cluster of real daemons, and a client on the bus of one of its nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from typing import Any

from covey.bus.client import connect
from covey.testing import Cluster
from registry_common import VALUE, Store, key_of, serve_client

LIMIT = 60.0
"""Seconds for another server to be filled and vote."""


def cluster(stack: ExitStack, servers: int) -> Cluster:
    """Start as many nodes as registry servers, as `covey lab` does: a process a component, CURVE between nodes."""
    found = Cluster(servers, isolation="process", mode="curve")
    stack.callback(found.close)
    found.up()
    for server in range(2, servers + 1):
        found[1].call("registry", "define_server", server=server, timeout=LIMIT)

    def level(status: Any) -> bool:
        votes = [one["state"] for one in status["servers"]]
        return status["writable"] and votes.count("primary") == 1 and votes.count("follower") == servers - 1

    found[1].wait(f"writes to be open with {servers} servers", level, ask=("registry", "status"))
    return found


class Registry(Store):
    """The keys of a run, by the bus of a node."""

    def __init__(self, state: str) -> None:
        self._state = state

    def opened(self) -> AbstractAsyncContextManager[Any]:
        """Connect."""
        return self._connected()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        async with connect(self._state) as self._bus:
            yield

    async def put(self, number: int) -> None:
        """Write a key; it is on a majority of the disks when this returns."""
        await self._bus.call("registry", "put", key=key_of(number, self.keys), value=VALUE)

    async def linear(self, number: int) -> None:
        """Read a key as of now."""
        self._check(await self._bus.call("registry", "get", key=key_of(number, self.keys)))

    async def stale(self, number: int) -> None:
        """Read a key as this node's server knows it."""
        self._check(await self._bus.call("registry", "get", key=key_of(number, self.keys), consistency="stale"))

    @staticmethod
    def _check(found: dict[str, Any]) -> None:
        assert len(found["value"]) == len(VALUE)


if __name__ == "__main__":
    serve_client(lambda said: Registry(said["state"]))

"""What a component's process is given: its connection, its local configuration, and its words to the DCM.

The DCM is reached by name only, over the bus; nothing of it is imported here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from ..errors import CoveyError
from .client import Client
from .messages import Way

Result = TypeVar("Result")

NEED_WAIT = 5.0
"""Seconds of one long poll for a function; it is repeated for ever."""


class Local(msgspec.Struct, frozen=True):
    """The node's local configuration as the DCM's verb `local` gives it (SPEC 3.2).

    `folder` is the current cluster's folder; `nodes` maps the number of each known node to its definition
    `{number, name, id, definition_id, addresses, port, …}`; `settings` are the node's YAML sections. `servers` are the
    registry servers that vote, `learners` those being filled, `stopped` those of both that an operator put offline.
    `ways` has the network of each subnetwork by its prefix, `server_lists` the places of each other server for registry
    traffic, best first, `server_order` the servers as this node is to prefer them (SPEC 8.3).
    """

    state_dir: str
    folder: str
    cluster_id: str
    cluster_name: str
    node: int
    node_name: str
    node_id: str
    boot_id: str
    servers: tuple[int, ...]
    nodes: dict[int, dict[str, Any]] = {}
    settings: dict[str, Any] = {}
    learners: tuple[int, ...] = ()
    stopped: tuple[int, ...] = ()
    ways: dict[str, Way] = {}
    server_lists: dict[int, tuple[str, ...]] = {}
    server_order: tuple[int, ...] = ()

    @property
    def registry_servers(self) -> tuple[int, ...]:
        """The nodes that run a registry server, the voters first: `servers` and `learners` that nobody stopped."""
        return tuple(node for node in (*self.servers, *self.learners) if node not in self.stopped)


class ComponentContext:
    """One component's side of one life with the DCM. `kept` is for its next lives in this process: a component's `main`
    is cancelled when the node moves to another cluster, and called again there."""

    def __init__(self, name: str, bus: Client, local: Local, kept: dict[str, Any] | None = None) -> None:
        self.name = name
        self.bus = bus
        self.local = local
        self.kept: dict[str, Any] = {} if kept is None else kept

    async def refresh(self) -> Local:
        """Ask the DCM for the local configuration anew and keep it."""
        self.local = msgspec.convert(await self.bus.call("dcm", "local"), Local)
        return self.local

    async def step(self, number: int, event: str, how: str = "done") -> None:
        """Write a step of SPEC 2.3 into the boot log."""
        await self.bus.call("dcm", "step", number=number, component=self.name, event=event, how=how)

    async def need(self, function: str) -> None:
        """Wait until a function is ready on this node. The DCM shows meanwhile whom this component waits for."""
        while True:
            try:
                answer = await self.bus.call(
                    "dcm",
                    "function_wait",
                    function=function,
                    component=self.name,
                    wait=NEED_WAIT,
                    timeout=NEED_WAIT + 10,
                )
            except CoveyError:
                await asyncio.sleep(0.1)  # the DCM is being restarted
                continue
            if answer["ready"]:
                return

    async def ready(self, *functions: str) -> None:
        """Tell the DCM that this component now offers these functions."""
        await self.bus.call("dcm", "ready", component=self.name, functions=list(functions))

    @staticmethod
    async def run_blocking(function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a blocking function in a thread."""
        return await asyncio.to_thread(function, *arguments)

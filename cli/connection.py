"""The way to the bus: opens it as the command line says, runs one coroutine, fills in where the answer came from.

Knows services and nodes, no verb of them. `answer` is the whole life of an ordinary command: connect, ask, render.
`--timeout` counts from the moment the connection stands and covers everything the command asks.
What is odd: `connect` is looked up here at call time, so that tests can put a bus of their own in its place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import NoDaemon, NoService, NotOnline, Timeout, WrongCluster
from .options import Settings, settings
from .output import Block, Envelope, print_result

if TYPE_CHECKING:
    from ..bus.client import Client

CONNECT_SECONDS = 10.0
"""How long a daemon may take to greet a command; one that is stopped or hung does not answer at all."""

OUTSIDE = (
    "`covey cluster define NAME` makes one here, `covey node define` on a member takes this node in, "
    "`covey node move --to CLUSTER` goes to one that `covey cluster ls` shows"
)
"""What to do with a node that is in no cluster."""

ONLINE_ONLY = frozenset({"registry", "liveness", "groups", "resources"})
"""Services that every node has, as long as it is online."""

Render = Callable[[Any], Iterable[Block]]
T = TypeVar("T")


class Session:
    """One command's time on the bus: the client, what was said on the command line, and the time that is left."""

    def __init__(self, bus: Client, said: Settings, timeout: float) -> None:
        import asyncio

        self.bus = bus
        self.said = said
        self.warnings: list[str] = []
        self.timeout = timeout
        self._now = asyncio.get_running_loop().time
        self._end = self._now() + timeout

    @property
    def left(self) -> float:
        """Seconds until the command's timeout."""
        return max(self._end - self._now(), 0.0)

    async def call(self, service: str, verb: str, /, *, node: int | str | None = None, **arguments: Any) -> Any:
        """Call a verb with what is left of the command's time, as a member of the cluster that was asked for."""
        return await self.ask(service, verb, self.left, node=node, **arguments)

    async def ask(
        self, service: str, verb: str, timeout: float, /, *, node: int | str | None = None, **arguments: Any
    ) -> Any:
        """Call a verb with a time of its own: for streams, which the command's timeout does not end."""
        cluster = self.bus.node.cluster_id if self.said.cluster is not None else ""
        try:
            return await self.bus.call(service, verb, node=node, timeout=timeout, cluster=cluster, **arguments)
        except NoService:
            if service not in ONLINE_ONLY:
                raise
            if node is None and self.bus.node.number == 0:
                raise NotOnline("this node is in no cluster", OUTSIDE) from None
            # "not found" would read as: there is no such key
            where = "this node" if node is None else f"node {node}"
            raise NotOnline(
                f"the service {service} does not run on {where}: that is not online, or starts it again",
                "see `covey node show`; if it is online, ask again",
            ) from None

    def envelope(self, schema: str) -> Envelope:
        """Return the envelope of an answer from this session."""
        here = self.bus.node
        cluster = {"name": here.cluster_name, "id": here.cluster_id} if here.cluster_id else None
        node = {"number": here.number, "name": here.name, "id": here.id} if here.number else None
        return Envelope(schema, cluster, node, self.warnings)


@asynccontextmanager
async def opened(said: Settings, timeout: float) -> AsyncIterator[Session]:
    """Open a session on the node of `--state`; raises NoDaemon, and WrongCluster when `--cluster` names another."""
    async with connected(said.folder) as bus:
        _check_cluster(bus, said.cluster)
        yield Session(bus, said, timeout)


@asynccontextmanager
async def connected(folder: Any) -> AsyncIterator[Client]:
    """Connect to the node of a state folder; raises NoDaemon when none answers within a few seconds."""
    import asyncio

    from ..bus.client import connect

    opening = connect(state=folder)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            bus = await opening.__aenter__()
    except TimeoutError:
        raise NoDaemon(
            f"the covey daemon on {folder} does not greet within {CONNECT_SECONDS:g} s",
            "it may be stopped or overloaded; look at its process and its log",
        ) from None
    try:
        yield bus
    finally:
        await opening.__aexit__(None, None, None)


def _check_cluster(bus: Client, wanted: str | None) -> None:
    here = bus.node
    if wanted is not None and wanted not in (here.cluster_id, here.cluster_name):
        found = f"{here.cluster_name} ({here.cluster_id})" if here.cluster_id else "no cluster"
        raise WrongCluster(
            f"asked to speak with cluster {wanted} only, and this node is in {found}", "nothing was asked or changed"
        )


def run(work: Callable[[Session], Awaitable[T]], *, timeout: float = 10.0, endless: bool = False) -> T:
    """Run one coroutine on the bus. `timeout` is this command's default; an `endless` one minds the time itself."""
    import asyncio

    said = settings()
    seconds = said.seconds(timeout)

    async def within() -> T:
        async with opened(said, seconds) as session:
            if endless:
                return await work(session)
            try:
                async with asyncio.timeout(seconds):
                    return await work(session)
            except TimeoutError:
                raise Timeout(
                    f"no answer within {seconds:g} s", "it may still happen; --timeout gives it longer"
                ) from None

    try:
        return asyncio.run(within())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None  # a stream was told twice to end


def answer(
    work: Callable[[Session], Awaitable[Any]],
    render: Render,
    *,
    timeout: float = 10.0,
    code: Callable[[Any], int] = lambda data: 0,
) -> int:
    """Ask, print the answer, return the exit code (`code` reads it from the data; 0 unless given)."""
    schema = command_schema()

    async def ask(session: Session) -> tuple[Any, Envelope]:
        return await work(session), session.envelope(schema)

    data, envelope = run(ask, timeout=timeout)
    print_result(envelope, data, render(data), settings())
    return code(data)


def offline(data: Any, render: Render, *, code: int = 0) -> int:
    """Print what needs no daemon: the same envelope, with no cluster and no node."""
    print_result(Envelope(command_schema()), data, render(data), settings())
    return code


def command_schema() -> str:
    """Return the dotted name of the running command: `registry.get` for `covey registry get`."""
    return ".".join(click.get_current_context().command_path.split()[1:])

"""Carry out what the move machine orders, and tell who waits how it ended. Decides nothing.

Orders are carried out one after the other; the leaving and joining itself is the life machine's (`daemon.py`). The time
of each step is taken here, from the request on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ...bus.driver import Driver, settle
from ...errors import Busy, CoveyError, NotDefined, Refused
from . import life, move
from .crash import crash_at
from .daemon import JOINED, Daemon
from .definitions import Clusters
from .home import Home, new_id
from .lookup import Verdict, ask_verdict
from .places import who_knows
from .settings import STATUS_TIME

log = logging.getLogger(__name__)

VOTES = ("primary", "follower")
"""Of the states of a registry server those in which it counts for the quorum."""


class Mover:
    """Moves this node between its clusters."""

    def __init__(self, home: Home, daemon: Daemon) -> None:
        self._home = home
        self._daemon = daemon
        self.machine = move.MoveMachine()
        self._driver = Driver(self.machine, self._order)  # type: ignore[arg-type]  # its effects are no others
        self._orders: asyncio.Queue[move.Effect] = asyncio.Queue()
        self._answer: asyncio.Future[dict[str, Any]] | None = None
        self._gone: asyncio.Future[dict[str, Any]] | None = None  # settled when the node is on its way
        self._moving = False  # from the request until all that follows from its end is done
        self._began = 0.0
        self._steps: list[tuple[str, float]] = []
        self._last: dict[str, Any] | None = None
        daemon.told = self._node_is

    def progress(self) -> dict[str, Any]:
        """Return the move under way, or the last one: `{state, from, to, ms, steps, error}`; "idle" when it is over."""
        if self._last is not None and not self._moving:
            return self._last
        state = self.machine.state
        told = self._told(self.machine.current, self.machine.target)
        return {"state": "ending" if self._moving and state == "idle" else state, **told, "error": None}

    def start(self) -> None:
        """Take up the move in whose middle the daemon ended, if it did; before the node's life begins."""
        now = self._home.clusters
        if now.target is not None and now.target != now.current:
            log.info("this node was on its way to another cluster when its daemon ended")
            self._begin()
            self._driver.feed(move.Found(now.current, now.target, now.offline))

    async def take_to(self, target: str, force: bool, wait: bool) -> dict[str, Any]:
        """Move the node to a cluster that it is defined to; return `{from, to, ms, steps}`, or raise why it is where
        it was. Without `wait` return when it is on its way."""
        if self._moving:
            raise Busy("this node is being moved already", "`covey cluster ls` shows from where to where")
        now = self._home.clusters
        self._answer = asyncio.get_running_loop().create_future()
        self._gone = asyncio.get_running_loop().create_future()
        answer = self._answer if wait else self._gone
        self._begin()
        self._driver.feed(move.Asked(now.current, target, force, now.offline))
        return await asyncio.shield(answer)

    async def run(self) -> None:
        """Carry out orders until cancelled; an error of the machine ends the DCM."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._driver.failed())
            tasks.create_task(self._perform_all())

    # --- orders -----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._moving, self._began, self._steps = True, asyncio.get_running_loop().time(), []

    def _order(self, effect: move.Effect) -> None:
        self._orders.put_nowait(effect)

    def _node_is(self, state: life.State, cluster: str) -> None:
        self._driver.feed(move.NodeIs(state, cluster, self._daemon.machine.reason))

    async def _perform_all(self) -> None:
        while True:
            effect = await self._orders.get()
            await _PERFORM[type(effect)](self, effect)

    async def _at(self, effect: move.At) -> None:
        self._steps.append((effect.step, asyncio.get_running_loop().time()))
        log.info("move: %s: %s", effect.step, move.STEPS[effect.step])
        crash_at(effect.step, self._home)

    async def _check(self, effect: move.Check) -> None:
        try:
            if not effect.force:
                await self._keeps_quorum()
            await self._answers(effect.target)
        except CoveyError as problem:
            self._driver.feed(move.Checked(problem))
        else:
            self._driver.feed(move.Checked())

    async def _point(self, effect: move.Point) -> None:
        home = self._home

        def pointed(now: Clusters) -> Clusters:
            return now.pointing(effect.current, effect.target, offline=now.offline and not effect.online)

        try:
            home.clusters = await asyncio.to_thread(home.store.change, pointed)
        except (CoveyError, OSError) as why:
            log.error("the pointers cannot be written: %s", why)
            self._driver.feed(move.Pointed(str(why)))
            return
        self._driver.feed(move.Pointed())

    async def _go(self, effect: move.Go) -> None:
        target = self._home.clusters.target
        try:
            server = target is not None and await asyncio.to_thread(self._home.serves, target)
        except CoveyError as why:  # the life machine finds the same, and says so
            log.error("%s", why)
            server = False
        self._daemon.feed(life.Switch(new_id(), server, effect.reason))
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(self._told(self.machine.current, self.machine.target))

    async def _rest(self, effect: move.Rest) -> None:
        self._daemon.feed(life.OfflineAsked(effect.reason, operator=False))
        await self._daemon.settled(move.AT_REST)
        await self._home.reload()
        if self._home.replica is None and self._daemon.machine.state in move.AT_REST:
            self._daemon.feed(life.Undefined())
        self._node_is(self._daemon.machine.state, self._home.clusters.target or "")

    async def _ended(self, effect: move.Ended) -> None:
        told = self._told(effect.current, effect.target)
        problem = effect.problem
        await self._home.audit("dcm", "moved", problem.code if problem else "done", **told)
        error = {"code": problem.code, "message": problem.message, "hint": problem.hint} if problem else None
        self._last, self._moving = {"state": "idle", **told, "error": error}, False
        for answer in (self._answer, self._gone):
            if answer is not None:
                settle(answer, problem or told)
                answer.exception()  # somebody may have gone without it
        self._answer = self._gone = None

    def _told(self, current: str | None, target: str) -> dict[str, Any]:
        names = {cluster: known.name for cluster, known in self._home.clusters.defined().items()}
        times = [self._began, *(at for _, at in self._steps)]
        steps = [
            {"step": step, "ms": round((at - before) * 1000, 1), "what": move.STEPS[step]}
            for (step, at), before in zip(self._steps, times, strict=False)
        ]
        ms = round((times[-1] - self._began) * 1000, 1)
        return {"from": names.get(current or ""), "to": names.get(target), "ms": ms, "steps": steps}

    # --- m1 ---------------------------------------------------------------------------------------------------

    async def _keeps_quorum(self) -> None:
        """Refuse to leave when the registry servers that stay would be no majority."""
        home = self._home
        if not home.server or self._daemon.machine.state not in JOINED:
            return
        own, servers = home.here().node.number, home.here().servers.servers
        if own not in servers:
            return
        try:
            status = await home.bus.call("registry", "status", timeout=STATUS_TIME)
        except CoveyError as why:
            raise Refused(f"the registry does not say whether it can do without this node: {why}", FORCE) from why
        stay = [one["number"] for one in status["servers"] if one["state"] in VOTES and one["number"] != own]
        if len(stay) <= len(servers) // 2:
            others = "none of the others votes" if not stay else f"only {', '.join(map(str, stay))} of the others vote"
            raise Refused(
                f"node {own} is a registry server of {home.here().cluster.name}, which would lose its quorum: {others}",
                FORCE,
            )

    async def _answers(self, target: str) -> None:
        """Refuse when the target does not list this node, or nobody there can say so from a current read."""
        home = self._home
        replica = await asyncio.to_thread(home.replica_of, target)
        if replica.servers.running == (replica.node.number,):
            return  # its registry is this node's own
        places = who_knows(replica.node, replica.servers, replica.nodes)
        asked = [asyncio.ensure_future(ask_verdict(home.bus, [place], target, replica.node)) for place in places]
        said: Verdict | None = None
        try:
            for each in asyncio.as_completed(asked):
                said = await each or said
                if said is not None and said.standing in ("defined", "gone"):
                    break
        finally:
            for each in asked:
                each.cancel()
        name = replica.cluster.name
        if said is None:
            raise Refused(f"no registry server of {name} answers", "is that cluster up? nothing was changed")
        if said.standing != "defined":
            raise NotDefined(
                f"{name} does not list this node any more: {said.place} says so",
                f"`covey node forget {name}` removes what is left of it here; or define the node there again",
            )


FORCE = "`covey registry define-server` another node first, or --force"

_PERFORM: dict[type[Any], Callable[[Mover, Any], Any]] = {
    move.Check: Mover._check,
    move.Point: Mover._point,
    move.Go: Mover._go,
    move.Rest: Mover._rest,
    move.At: Mover._at,
    move.Ended: Mover._ended,
}

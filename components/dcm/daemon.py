"""Carry out what the node's life machine orders, and tell it what came of it. Decides nothing.

Effects are performed one after the other, in the order in which the machine gave them (a boot id is told to the
broker before a component starts, local files are renewed before a component may read them). Those that wait for
others (reading the registry, discovery, leaving) run beside, and end as an input; what comes after the stay in the
cluster that it was about is dropped, for the node may be in another one by then.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from ...bus.driver import Background, Driver
from ...errors import CompareFailed, CoveyError, LocalDamaged, NotDefined
from . import life
from .crash import crash_at
from .definitions import Clusters, Replacement, Replica
from .entries import decision_key, modify, standing
from .home import Home, new_id
from .identity import Elsewhere, Verdict, copy_of
from .lives import Lives
from .lookup import Global, ask_verdict, read_global, read_value, same_node_elsewhere
from .lookup import Verdict as Standing
from .machine import START_STEPS, NodeMachine
from .places import who_knows
from .processes import Spawner
from .settings import (
    CONFIGURED_TIME,
    CORES_KEPT,
    DISCOVERY_TIME,
    LEAVE_TIME,
    PRIMARY_LOOK,
    STATUS_TIME,
    STOP_TIME,
    VERDICT_PLACES,
    WRITE_TIME,
)
from .storage import read_document, write_document

log = logging.getLogger(__name__)

JOINED: tuple[life.State, ...] = ("starting", "configuring", "online")

UNPROVED = (
    "the cluster does not list this node, and holds no proof that it was undefined: nothing is erased",
    "is its registry an older copy? Else `covey node forget`, and define the node again",
)
"""Message and hint, when a node is in no list and there is no tombstone of it."""


class Daemon:
    """The driver of one node's life."""

    def __init__(self, home: Home, spawner: Spawner, plan: life.Plan) -> None:
        self.home = home
        self.machine = NodeMachine(plan)
        self.open: set[str] = set()  # functions that components may use: what the machine says, once it is carried out
        self.waits: dict[str, dict[str, int]] = {}
        self.crashed: dict[str, str] = {}
        self.started_at = _utc()
        self._spawner = spawner
        self.lives = Lives(spawner)
        self.told: Callable[[life.State, str], None] = lambda _state, _cluster: None
        """Called with each state and the cluster it is about, once all that was ordered before is done."""
        self._driver = Driver(self.machine, self._order)  # type: ignore[arg-type]  # its effects are no others
        self._orders: asyncio.Queue[life.Effect] = asyncio.Queue()
        self._background = Background()
        self._changed = asyncio.Event()
        self._global: Global | None = None
        self._places_asked = 0
        self._proof: dict[str, Any] | None = None  # on what ground the cluster's data here may be erased

    # --- for the service --------------------------------------------------------------------------------------

    def feed(self, input: life.Input) -> None:
        """Tell the machine that something happened."""
        self._driver.feed(input)
        self._wake()

    async def run(self) -> None:
        """Perform orders until cancelled; an error of the machine ends the DCM."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._perform_all())
            tasks.create_task(self._watch_exits())
            tasks.create_task(self._driver.failed())

    async def close(self) -> None:
        await self._background.close()

    async def settled(self, states: Iterable[life.State]) -> life.State:
        """Wait until the node is in one of these states, and nothing that was ordered is undone."""
        wanted = set(states)
        while self.machine.state not in wanted or not self._orders.empty():
            await self._change()
        return self.machine.state

    async def function_wait(self, function: str, component: str, wait: float) -> bool:
        """Wait until a function is there, for at most `wait` seconds; say whether it is."""
        waiting = self.waits.setdefault(component, {})
        waiting[function] = waiting.get(function, 0) + 1
        try:
            async with asyncio.timeout(wait):
                while function not in self.open:
                    await self._change()
        except TimeoutError:
            pass
        finally:
            waiting[function] -= 1
            if not waiting[function]:
                del waiting[function]
        return function in self.open

    def function_ready(self, functions: Iterable[str]) -> None:
        """A component offers these functions now."""
        for function in functions:
            if self.machine.state in ("checking", *JOINED):
                self.open.add(function)
            self.feed(life.FunctionReady(function))

    def waiting(self) -> dict[str, list[str]]:
        """For which functions each component waits just now."""
        return {component: sorted(functions) for component, functions in self.waits.items() if functions}

    def start(self) -> None:
        """Tell the machine how the node stands when the daemon starts."""
        home = self.home
        self.feed(
            life.Started(
                defined=home.replica is not None,
                server=home.server,
                offline=home.clusters.offline,
                boot_id=new_id(),
                problem=home.problem,
            )
        )

    async def defined(self, cluster_id: str) -> None:
        """This node was defined to a cluster: join it, if its pointer is there and no operator said otherwise."""
        await self.home.reload()
        home, state = self.home, self.machine.state
        current = home.replica is not None and home.replica.cluster.id == cluster_id
        if current and state in ("undefined", "offline", "failed") and not home.clusters.offline:
            self.feed(life.Defined(home.server, new_id()))

    def last_verdict(self) -> dict[str, Any] | None:
        """Return the last verdict there was, over restarts and clean-ups. Blocks."""
        if self.machine.verdict is not None:
            found: dict[str, Any] = msgspec.to_builtins(self.machine.verdict)
            return found
        try:
            kept = read_document(self.home.layout.verdict_file, "verdict", Verdict)
        except LocalDamaged:
            return None
        return None if kept is None else dict(msgspec.to_builtins(kept))

    # --- orders -----------------------------------------------------------------------------------------------

    def _order(self, effect: life.Effect) -> None:
        self._orders.put_nowait(effect)

    async def _perform_all(self) -> None:
        while True:
            effect = await self._orders.get()
            try:
                beside = _BESIDE.get(type(effect))
                if beside is not None:
                    work = self._beside(beside(self, effect), self.home.boot_id)
                    self._background.start(work, type(effect).__name__)
                else:
                    await _INLINE[type(effect)](self, effect)
            except (CoveyError, OSError) as why:
                log.error("%s failed: %s", type(effect).__name__, why)
            self._wake()

    async def _beside(self, work: Awaitable[life.Input | None], stay: str) -> None:
        """Tell the machine what came of an order, unless the node's stay in the cluster that it was about is over."""
        input = await work
        if input is not None and self.machine.boot_id == stay:
            self.feed(input)

    async def _watch_exits(self) -> None:
        async for exit in self._spawner.exits():
            self.lives.gone(exit.name)
            self.feed(life.ComponentExited(exit.name, exit.status, exit.reason))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self) -> None:
        await self._changed.wait()

    async def _state(self, effect: life.StateChanged) -> None:
        log.info("the node is %s%s", effect.state, f": {effect.reason}" if effect.reason else "")
        body = {"state": effect.state, "reason": effect.reason, "boot_id": self.home.boot_id}
        if effect.state in ("offline", "undefined", "failed"):
            await self.lives.stop_resting(STOP_TIME)
            self.home.boot_id = ""
            await self.home.tell_broker()
        if effect.state == "failed":
            await self.home.audit("dcm", "node_failed", "failed", reason=effect.reason)
        await self.home.bus.publish("dcm.state", body)
        self._tell(effect.state)

    def _at(self, step: str) -> None:
        log.info("join: step %s", step)
        crash_at(step, self.home)

    def _tell(self, state: life.State) -> None:
        replica = self.home.replica
        self.told(state, replica.cluster.id if replica else "")

    async def _begin(self, effect: life.Begin) -> None:
        await self._background.close()  # what was asked in the stay before
        self._background = Background()
        self.home.boot_id = effect.boot_id
        self._global = self._proof = None
        self._places_asked = 0
        self.open.clear()
        self.waits = {}
        self.crashed.clear()
        self.home.boot_log.begin(effect.boot_id, self.started_at)
        await self.home.enter()
        await self.home.tell_repairs()
        await self.home.tell_broker()
        self._at("j1")
        if self.home.replica is None:
            self.feed(life.OfflineAsked(self.home.problem or "its cluster is gone from here", operator=False))
        self._tell(self.machine.state)

    async def _record(self, effect: life.RecordStep) -> None:
        self.home.boot_log.record(effect.step, "", effect.event, effect.how)

    async def _start(self, effect: life.StartComponent) -> None:
        try:
            await self.lives.begin(effect.name, self.home.boot_id)
        except (CoveyError, OSError) as why:
            self.feed(life.ComponentFailed(effect.name, str(why)))
        else:
            self.feed(life.ComponentStarted(effect.name))

    async def _stop(self, effect: life.StopComponent) -> None:
        try:
            await self.lives.end(effect.name, effect.deadline, keep=effect.keep)
        except (CoveyError, OSError) as why:
            log.error("%s cannot be stopped: %s", effect.name, why)
        self.feed(life.ComponentStopped(effect.name))

    async def _open(self, effect: life.OpenFunctions) -> None:
        self.open.update(effect.functions)
        if "dcm.join" in effect.functions:
            self._at("j2")

    async def _close(self, effect: life.CloseFunctions) -> None:
        self.open.difference_update(effect.functions)

    async def _come_back(self, _effect: life.ComeBack) -> None:
        if self.machine.state == "failed" and self.home.replica is not None and not self.home.clusters.offline:
            log.info("the node tries again: %s", self.machine.reason)
            self.feed(life.Defined(self.home.server, new_id()))

    async def _keep_offline(self, effect: life.KeepOffline) -> None:
        def changed(now: Clusters) -> Clusters:
            return msgspec.structs.replace(now, offline=effect.offline)

        self.home.clusters = await asyncio.to_thread(self.home.store.change, changed)

    async def _crashed(self, effect: life.Crashed) -> None:
        self.crashed[effect.name] = effect.reason or f"status {effect.status}"
        log.error("%s ended unasked: %s", effect.name, self.crashed[effect.name])
        step = START_STEPS.get(effect.name)
        if step and self.machine.state != "online":  # the boot is not over
            self.home.boot_log.record(step, "", f"{effect.name} ended: {self.crashed[effect.name]}", "failed")
        record: dict[str, Any] = {"name": effect.name, "status": effect.status, "reason": effect.reason, "at": _utc()}
        record["boot_id"] = self.home.boot_id
        await self.home.bus.publish("dcm.crash", record)
        folder = self.home.folder.core
        file = folder / f"{record['at'].replace(':', '')}-{effect.name.replace(':', '-')}.json"
        try:
            write_document(file, "crash", record)
        except OSError as why:
            log.error("how %s ended cannot be written down: %s", effect.name, why)
        for old in sorted(folder.glob("*.json"))[:-CORES_KEPT]:
            old.unlink(missing_ok=True)

    async def _refresh(self, _effect: life.RefreshLocal) -> None:
        """Missed updates: name, addresses, servers, the other nodes (SPEC 5.3)."""
        if self._global is None:
            return
        changed = [name for name in await self.home.refresh(self._global.renewed) if name != "nodes"]
        if changed:
            await self.home.audit("dcm", "local_refreshed", "done", changed=changed)
        verdict, cluster_id = self.machine.verdict, self.home.here().cluster.id
        if verdict is not None and verdict.scenario == 1:  # a replacement was carried out, and a crash left its record
            await asyncio.to_thread(self.home.store.drop_replacement, cluster_id)

    async def _erase(self, effect: life.EraseLocal) -> None:
        """The deletion of scenarios 2 and 4 is completed: only this cluster's local definition goes."""
        cluster = self.home.here().cluster
        write_document(self.home.layout.verdict_file, "verdict", effect.verdict)
        await asyncio.to_thread(self.home.store.erase_cluster, cluster.id)
        about: dict[str, Any] = {"cluster": cluster.id, "name": cluster.name, "scenario": effect.verdict.scenario}
        await self.home.audit("dcm", "local_erased", "done", **about, proof=self._proof)
        self.home.boot_id = ""
        await self.home.reload()
        self.feed(life.Erased())

    # --- what waits for others --------------------------------------------------------------------------------

    async def _read_global(self, _effect: life.ReadGlobal) -> life.Input:
        home = self.home
        original = await asyncio.to_thread(home.read_original)
        cluster, node = home.here().cluster, home.here().node
        local = copy_of(cluster.id, node)
        try:
            replacement = await asyncio.to_thread(home.store.replacement, cluster.id)
            found = await read_global(home.bus, cluster.id)
            entry = found.entry(node.number)
            if entry is None or entry.definition.definition_id != node.definition_id:
                await self._tombstone(cluster.id, node.definition_id)
        except CoveyError as why:
            return life.GlobalRead(original, local, None, known=False, why=str(why))
        self._global = found
        owner = next((each.definition for each in found.entries if each.definition.id == original), None)
        other = owner is not None and owner.number != node.number
        boot = ""
        if entry is not None:
            boot = await same_node_elsewhere(home.bus, cluster.id, entry.definition, home.endpoints(), home.boot_id)
        return life.GlobalRead(
            original,
            local,
            copy_of(found.cluster.id, entry.definition if entry else None),
            why=home.original_problem,
            replacement=replacement,
            elsewhere=Elsewhere(boot or None, f"{owner.name} ({owner.number})" if other and owner else None),
        )

    async def _tombstone(self, cluster_id: str, definition_id: str) -> None:
        """Make sure that a definition that the registry does not list was undefined; raises NotDefined when not so.

        A registry that was put back from an older copy does not list the node either, and that is no ground to erase.
        """
        value, revision = await read_value(self.home.bus, decision_key(definition_id), cluster_id)
        if standing(value) != "gone":
            raise NotDefined(*UNPROVED)
        self._proof = Standing("gone", definition_id, revision=revision).proof()

    async def _ask_verdict(self, _effect: life.AskVerdict) -> life.Input | None:
        """Whoever answers has read the registry: the tombstone of this definition is proof (SPEC 5.7)."""
        home = self.home
        cluster, node = home.here().cluster, home.here().node
        known = who_knows(node, home.here().servers, home.here().nodes)
        begin = self._places_asked % len(known) if known else 0
        places = [*known[begin:], *known[:begin]][:VERDICT_PLACES]
        self._places_asked += len(places)
        problems: list[str] = []
        verdict = await ask_verdict(home.bus, places, cluster.id, node, problems)
        if verdict is None and problems:
            why = f"no registry server of {cluster.name} answers, and nobody says how this node stands: {problems[0]}"
            return life.GlobalRead(home.original, copy_of(cluster.id, node), None, known=False, why=why)
        if verdict is None or verdict.standing not in ("gone", "unknown"):
            return None
        original = await asyncio.to_thread(home.read_original)
        if verdict.standing == "gone":
            self._proof = verdict.proof()
            return life.GlobalRead(original, copy_of(cluster.id, node), None, why=home.original_problem)
        why = str(NotDefined(*UNPROVED))
        return life.GlobalRead(original, copy_of(cluster.id, node), None, known=False, why=why)

    async def _replace(self, effect: life.ReplaceIdentity) -> life.Input:
        """Scenario 3, both or neither: a pending record, then the global id by compare-and-set, then the local one."""
        home = self.home
        here, new = home.here(), effect.original
        cluster_id = here.cluster.id
        try:
            found = await read_global(home.bus, cluster_id)
            entry = found.entry(here.node.number)
            if entry is None or entry.definition.definition_id != here.node.definition_id:
                raise NotDefined("the definition of this node went away meanwhile")
            if entry.definition.id != new:
                await asyncio.to_thread(home.store.save, cluster_id, Replacement(entry.definition.id, new))
                self._at("r1")
                done = await home.bus.call("registry", "txn", **modify(entry, id=new), system=True, timeout=WRITE_TIME)
                if not done["succeeded"]:
                    raise CompareFailed("the node's entry, or an index of it, was changed by somebody else")
        except CompareFailed as why:
            log.warning("the node's id cannot be replaced now: %s", why)
            return life.Replaced(False)
        except CoveyError as why:
            log.info("the node's id is replaced as soon as the registry takes writes: %s", why)
            return life.Replaced(False)

        def renamed(old: Replica) -> Replica:
            return msgspec.structs.replace(old, node=msgspec.structs.replace(old.node, id=new))

        self._at("r2")
        await home.refresh(renamed)
        self._at("r3")
        await asyncio.to_thread(home.store.drop_replacement, cluster_id)
        await home.audit("dcm", "identity_replaced", "done", old=here.node.id, new=new)
        self._global = None
        return life.Replaced(True)

    async def _discover(self, _effect: life.Discover) -> life.Input:
        self._at("j3")
        await self._try("resources", "discover", DISCOVERY_TIME)
        self._at("j8")
        return life.DiscoveryDone()

    async def _announce(self, _effect: life.Announce) -> life.Input:
        self._at("j9")
        return life.Announced(await self._try("liveness", "configured", CONFIGURED_TIME))

    async def _leave(self, _effect: life.Leave) -> life.Input:
        leaving = asyncio.ensure_future(self._try("liveness", "leave", LEAVE_TIME))
        hopeless = asyncio.ensure_future(self._no_primary())
        try:
            await asyncio.wait((leaving, hopeless), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (leaving, hopeless):
                task.cancel()
        return life.Left()

    async def _no_primary(self) -> None:
        """Wait until no primary is known: then nobody can take this node out of the view."""
        while True:
            try:
                if not (await self.home.bus.call("registry", "status", timeout=STATUS_TIME))["primary"]:
                    return
            except CoveyError:
                pass  # it may be that the registry is just ending; the leaving has its own time
            await asyncio.sleep(PRIMARY_LOOK)

    async def _try(self, service: str, verb: str, timeout: float) -> bool:
        try:
            await self.home.bus.call(service, verb, timeout=timeout)
        except CoveyError as why:
            log.warning("%s.%s: %s", service, verb, why)
            return False
        return True


def _utc() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_Perform = Callable[[Daemon, Any], Awaitable[None]]
_Ask = Callable[[Daemon, Any], Awaitable[life.Input | None]]
_INLINE: dict[type[Any], _Perform] = {
    life.StateChanged: Daemon._state,
    life.Begin: Daemon._begin,
    life.RecordStep: Daemon._record,
    life.StartComponent: Daemon._start,
    life.StopComponent: Daemon._stop,
    life.OpenFunctions: Daemon._open,
    life.CloseFunctions: Daemon._close,
    life.ComeBack: Daemon._come_back,
    life.KeepOffline: Daemon._keep_offline,
    life.Crashed: Daemon._crashed,
    life.RefreshLocal: Daemon._refresh,
    life.EraseLocal: Daemon._erase,
}
_BESIDE: dict[type[Any], _Ask] = {
    life.ReadGlobal: Daemon._read_global,
    life.AskVerdict: Daemon._ask_verdict,
    life.ReplaceIdentity: Daemon._replace,
    life.Discover: Daemon._discover,
    life.Announce: Daemon._announce,
    life.Leave: Daemon._leave,
}

"""The verbs of `dcm` (SPEC 4 in the words of the command line), for people, for components and for other DCMs.

A verb that concerns another node (`number`) is forwarded to that node's DCM, which does it and answers. Each change is
written to the audit log of the node that did it, with who asked and how it ended.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from ...bus.messages import Role
from ...bus.service import Request, verb
from ...errors import BadArguments, CoveyError, NotFound, Refused, WrongCluster, from_wire
from . import dependencies, identity, life
from .auditing import AuditVerbs
from .blocking import BlockVerbs
from .crash import crash_at
from .daemon import Daemon
from .decision import Request as Wanted
from .definer import Definer
from .definitions import split_endpoint
from .dependencies import Graphs
from .doctoring import DoctorVerbs
from .home import Home, new_id
from .mover import Mover
from .network_verbs import NetworkVerbs
from .plugin_list import PluginList, Told
from .settings import CONTROL_TIME, STATUS_TIME
from .status import cluster_status
from .token import parse
from .undefining import IDLE
from .watching import Watcher

DISCOVERY_STEPS = {22: "j4", 23: "j5", 24: "j6"}
"""Of the steps of the boot those in which controllers discover: their names in SPEC 6.4."""


class Verbs(NetworkVerbs, AuditVerbs, BlockVerbs, DoctorVerbs):
    """One node's DCM, as others see it."""

    def __init__(
        self,
        home: Home,
        daemon: Daemon,
        definer: Definer,
        watcher: Watcher,
        mover: Mover,
        plugins: PluginList,
        graphs: Graphs,
    ) -> None:
        super().__init__(home, daemon, definer)
        self._watcher = watcher
        self._mover = mover
        self._plugins = plugins
        self._blocking = asyncio.Lock()
        self._graphs = graphs

    # --- for components ---------------------------------------------------------------------------------------

    @verb()
    def local(self) -> dict[str, Any]:
        """Return this node's local configuration."""
        return self._home.local()

    @verb(Role.COMPONENT)
    def step(self, *, number: int, component: str, event: str, how: str = "done") -> None:
        """Write a step of the bootstrap into the boot log."""
        if component == "resources" and number in (22, 23, 24):
            component = "controllers"  # the Resource Manager speaks for those it reaches
        try:
            self._home.boot_log.record(number, component, event, how)
        except ValueError as why:
            raise BadArguments(str(why)) from why
        if number in DISCOVERY_STEPS:
            crash_at(DISCOVERY_STEPS[number], self._home)
        if number == 24 and not component.startswith("controller:"):
            self._daemon.feed(life.ControllersReady())

    @verb(Role.COMPONENT)
    def ready(self, *, component: str, functions: list[str]) -> None:
        """A component now offers these functions."""
        foreign = [each for each in functions if self._graphs.offered_by.get(each) != component]
        if foreign:
            raise BadArguments(
                f"{component} does not declare that it offers {', '.join(foreign)}",
                f"it declares {', '.join(self._graphs.functions_of(component)) or 'nothing'}",
            )
        self._daemon.function_ready(functions)

    @verb(Role.COMPONENT)
    async def life(self, *, component: str, boot_id: str) -> str:
        """A process says in which life it is, "" for none; returns which one it is to be in when that is another."""
        return await self._daemon.lives.ask(component, boot_id)

    @verb(Role.COMPONENT)
    async def function_wait(self, *, function: str, component: str, wait: float) -> dict[str, Any]:
        """Wait until a function is there, for at most `wait` seconds."""
        if function not in self._graphs.functions:
            raise NotFound(
                f"no component offers {function!r}", "there are: " + ", ".join(sorted(self._graphs.functions))
            )
        return {"ready": await self._daemon.function_wait(function, component, min(max(wait, 0.0), 60.0))}

    @verb(Role.COMPONENT)
    def controllers_start(self) -> dict[str, Any]:
        """Start the processes of all installed controllers (step 21)."""
        names = self._plugins.processes()
        self._daemon.feed(life.ControllersAsked(tuple(names)))
        return {"processes": names}

    @verb(Role.COMPONENT)
    def plugin_state(self, *, name: str, state: str, reason: str = "", classes: tuple[str, ...] = ()) -> None:
        """A process says what became of a plugin it runs."""
        self._plugins.tell(name, Told(state, reason, classes))

    @verb(Role.COMPONENT)
    async def audit(self, *, who: str, uid: int, what: str, outcome: str, about: dict[str, Any]) -> None:
        """A component has the audit log say who asked it for what, and how it ended; `uid` -1: nobody proved it."""
        about = {name: value for name, value in about.items() if name not in ("who", "what", "outcome", "uid")}
        await self._home.audit(who, what, outcome, uid if uid >= 0 else None, **about)

    # --- between DCMs -----------------------------------------------------------------------------------------

    @verb(Role.COMPONENT)
    async def definition_gone(self, *, cluster_id: str) -> dict[str, Any]:
        """Somebody says that this node was undefined: ask the cluster, and clean up if it is so."""
        return {"erased": await self._undefiner.definition_gone(cluster_id)}

    # --- looking ----------------------------------------------------------------------------------------------

    @verb()
    async def cluster_status(self) -> dict[str, Any]:
        """Return the cluster as this node sees it."""
        liveness, registry = await asyncio.gather(self._ask("liveness"), self._ask("registry"))
        machine = self._daemon.machine
        return cluster_status(self._home.replica, liveness, registry, machine.state, machine.reason, self._home.boot_id)

    @verb()
    async def node_ls(self) -> list[dict[str, Any]]:
        """Return the nodes of the cluster with their states."""
        found: list[dict[str, Any]] = (await self.cluster_status())["nodes"]
        return found

    @verb()
    async def node_show(self, *, number: int | None = None) -> dict[str, Any]:
        """Return one node: by default this one."""
        wanted = self._home.here().node.number if number is None else number
        for node in await self.node_ls():
            if node["number"] == wanted:
                if wanted == self._home.here().node.number:
                    machine = self._daemon.machine
                    return node | {
                        "phase": machine.state,
                        "reason": machine.reason,
                        "code": machine.verdict.code if machine.verdict and machine.state == "failed" else "",
                        "waiting_for": machine.waiting_for if node["state"] == "pending online" else [],
                    }
                return node
        raise NotFound(f"no node has the number {wanted}", "`covey node ls` lists the nodes")

    @verb()
    async def node_verdict(self) -> dict[str, Any]:
        """Return the last verdict over this node's identity; changes nothing."""
        home = self._home
        if home.problem:  # nothing of the local files is used, so nothing can be compared
            damaged = identity.Verdict(home.original, None, None, None, "wait", home.problem, home.problem_code)
            return dict(msgspec.to_builtins(damaged))
        last = await asyncio.to_thread(self._daemon.last_verdict)
        if last is not None:
            return last
        local = identity.copy_of(home.replica.cluster.id, home.replica.node) if home.replica else None
        why = home.original_problem or "the cluster was not asked yet: this node did not join since its start"
        found: dict[str, Any] = msgspec.to_builtins(identity.judge(home.original, local, None, known=False, why=why))
        return found

    @verb()
    async def node_boot_log(self, *, number: int | None = None) -> list[dict[str, Any]]:
        """Return the last boot of a node as a timeline."""
        if self._elsewhere(number):
            return list(await self._home.bus.call("dcm", "node_boot_log", node=number, timeout=5.0))
        return self._home.boot_log.timeline(self._daemon.waiting())

    @verb()
    def components(self) -> dict[str, Any]:
        """Return both graphs, the order of start, and how each component is."""
        machine = self._daemon.machine
        graphs: dict[str, Any] = msgspec.to_builtins(self._graphs)
        crashed = self._daemon.crashed
        return graphs | {
            "text": dependencies.text(self._graphs),
            "dot": dependencies.dot(self._graphs),
            "ready": sorted(self._daemon.open),
            "running": list(machine.running),
            "waiting": self._daemon.waiting(),
            "crashed": dict(sorted(crashed.items())),
        }

    @verb()
    def plugins(self) -> list[dict[str, Any]]:
        """Return every plugin with its state."""
        return self._plugins.lines(self._daemon.crashed, self._daemon.machine.running)

    @verb()
    def plugin_why(self, *, name: str) -> dict[str, Any]:
        """Return the whole story of a plugin."""
        return self._plugins.why(name, self._daemon.crashed, self._daemon.machine.running)

    # --- changing nodes ---------------------------------------------------------------------------------------

    @verb(Role.ADMIN)
    async def node_define(
        self,
        request: Request,
        *,
        address: str,
        name: str | None = None,
        number: int | None = None,
        id: str | None = None,
        token: str | None = None,
    ) -> dict[str, Any]:
        """Define the node at an address to this cluster; return its definition, and as `findings` what is doubtful
        about it. It joins by itself.

        `token` is what `covey node prepare` printed there; in mode curve nothing goes without.
        """
        given = parse(token) if token else None
        where = await _numeric(split_endpoint(address, self._home.port))
        about = {"address": where, "name": name, "number": number, "token": given.id if given else None}
        async with self._audited(request, "node_define", **about):
            self._must_be_online("define a node")
            node, findings = await self._definer.define(Wanted(where, number, name, id, given))
            await self._watcher.seen()
            found: dict[str, Any] = msgspec.to_builtins(node)
            return found | {"findings": msgspec.to_builtins(findings)}

    @verb(Role.ADMIN)
    async def node_undefine(self, request: Request, *, number: int) -> dict[str, Any]:
        """Remove a node's definition, everywhere; one that is online is first put offline in order."""
        async with self._audited(request, "node_undefine", number=number):
            self._must_be_online("undefine a node")
            undefined = await self._undefiner.undefine(number)
            await self._watcher.seen()
            return undefined

    @verb(Role.OPERATOR)
    async def node_online(self, request: Request, *, number: int | None = None) -> dict[str, Any]:
        """Put a node online: it begins to join. Returns when that is accepted."""
        if number is not None and self._elsewhere(number):
            return await self._order("node_online", number)
        async with self._audited(request, "node_online"):
            self._same_cluster(request)
            if self._daemon.machine.state in IDLE:
                await self._home.reload()
            if self._home.problem:
                raise from_wire(self._home.problem_code, self._home.problem, "this node stays as it is until then")
            self._home.here()
            self._daemon.feed(life.OnlineAsked(self._home.server, new_id()))
            return self._own_state()

    @verb(Role.OPERATOR)
    async def node_offline(
        self, request: Request, *, number: int | None = None, wait: bool = False, operator: bool = True
    ) -> dict[str, Any]:
        """Put a node offline and keep it so over restarts. Returns when that is accepted, with `wait` when it is so."""
        if number is not None and self._elsewhere(number):
            return await self._order("node_offline", number, wait=wait, operator=operator)
        async with self._audited(request, "node_offline"):
            self._same_cluster(request)
            self._home.here()
            self._daemon.feed(life.OfflineAsked(f"asked by {request.source}", operator))
            if wait:
                await self._daemon.settled(IDLE)
            return self._own_state()

    @verb(Role.ADMIN)
    async def node_move(
        self, request: Request, *, to: str, force: bool = False, wait: bool = True, number: int | None = None
    ) -> dict[str, Any]:
        """Move a node to another of its clusters; return `{from, to, ms, steps}` when it is online there.

        Without `wait`, and for another node, which leaves the cluster by it, when the move has begun. `force`: though
        the cluster that it leaves loses its quorum.
        """
        if self._elsewhere(number):
            return dict(
                await self._home.bus.call(
                    "dcm", "node_move", node=number, to=to, force=force, wait=False, timeout=CONTROL_TIME
                )
            )
        async with self._audited(request, "node_move", to=to, force=force or None) as noted:
            self._same_cluster(request)
            cluster_id, name = self._defined_to(to)
            noted["cluster"] = cluster_id
            if cluster_id == self._home.clusters.target == self._home.clusters.current:
                raise Refused(f"this node is in {name} already", "nothing was done")
            return await self._mover.take_to(cluster_id, force, wait)

    @verb()
    def node_moving(self) -> dict[str, Any]:
        """Return the move under way, or the last one of this daemon: `{state, from, to, ms, steps, error}`."""
        return self._mover.progress()

    # --- helpers ----------------------------------------------------------------------------------------------

    async def _ask(self, service: str) -> dict[str, Any] | None:
        if self._daemon.machine.state in (*IDLE, "new"):
            return None
        try:
            return dict(await self._home.bus.call(service, "status", timeout=STATUS_TIME))
        except CoveyError:
            return None

    def _same_cluster(self, request: Request) -> None:
        replica = self._home.replica
        if request.cluster and replica is not None and request.cluster != replica.cluster.id:
            raise WrongCluster(
                f"this node is in the cluster {replica.cluster.id}, the request is for {request.cluster}"
            )


async def _numeric(endpoint: str) -> str:
    """Return an endpoint with its host as an address: links are made to addresses."""
    host, _, port = endpoint.rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port))
    except (OSError, UnicodeError) as why:  # the latter: no name that the domain name system could hold
        raise NotFound(f"the host {host!r} has no address: {why}", "give the node's address instead") from why
    address = str(found[0][4][0])
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

"""What this node knows of itself: its YAML, its local files, its audit and boot logs, and what it told the broker.

The one place where the parts of the DCM meet. Knows the bus only to tell the broker who this node is; decides nothing.
`load` reads the files of the current cluster into memory; whatever changes them goes through here, so that memory, disk
and broker never differ for longer than the change takes.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ...bus.client import Client
from ...bus.security import load_keys
from ...config.adapters import addresses_of
from ...errors import CoveyError, KeyChanged, NotDefined, NotFound
from ...plugins.hookspecs import IdentitySource
from .audit import AuditLog
from .bootlog import BootLog
from .definitions import Blocked, ClusterDefinition, Clusters, NodeDefinition, Replica, ServerList, endpoint, plain
from .layout import ClusterLayout, Layout
from .messages import Prepared
from .networks import Networks, Place
from .routes import Routes, routes_of
from .sources import read_original
from .storage import Store

log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT)

CACHED = {"servers", "nodes", "networks"}
"""Parts of the local copy that others hold and this node reads again at its next start."""


def new_id() -> str:
    """Return a new id for a cluster, a definition, a boot or a transaction."""
    return uuid.uuid4().hex


class Home:
    """This node's own facts."""

    def __init__(self, config: Any, state_dir: Path, bus: Client, sources: dict[str, IdentitySource]) -> None:
        self.bus = bus
        self.layout = Layout(state_dir)
        self.store = Store(self.layout)
        self.store.prepare()
        self.audit_log = AuditLog(self.layout.audit_log)
        self.boot_log = BootLog(self.layout.boot_log)
        self.name = str(config.node.name)
        self.port = int(config.node.port)
        self.boot_id = ""
        self.clusters = Clusters()
        self.blocked: dict[str, Blocked] = {}
        self.replica: Replica | None = None
        self.problem = ""
        self.problem_code = ""
        self.original: str | None = None
        self.original_problem = ""
        self.settings = _settings(config)
        self.curve = str(config.security.mode) == "curve"
        self.key = load_keys(config.security.key.file).public if self.curve else ""
        """This node's public key in hex; empty in mode open."""
        self._adapters = config.node.adapters
        self._sources = sources
        self._identity = config.node.identity
        self._told: Any = None
        self._networks: Networks | None = None
        self._routes: tuple[Networks, int, Routes] | None = None
        self._refreshing = asyncio.Lock()
        self._unsaved: set[str] = set()  # parts of the local copy for which the disk had no room

    # --- reading ----------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read the local files; `problem` says what is damaged, and then nothing of it is used. Blocks.

        What is read is the cluster of the target pointer: in the middle of a move that is tried first.
        """
        replica, problem, code = None, "", ""
        try:
            self.blocked = self.store.blocked()
            self.clusters = self.store.clusters()
            target = self.clusters.target
            if target is not None and target in self.clusters.defined():
                replica = self.replica_of(target)
        except CoveyError as why:
            problem, code = str(why), why.code
        self.replica, self.problem, self.problem_code = replica, problem, code

    def read_original(self) -> str | None:
        """Read this machine's own id from its source; None when it cannot be read. Blocks."""
        setting = self._identity
        if not isinstance(setting, (str, dict)):
            setting = setting.source if setting.value is None else {setting.source: setting.value}
        try:
            self.original = read_original(setting, self.layout.state_dir, self._sources)
            self.original_problem = ""
        except CoveyError as why:
            self.original, self.original_problem = None, str(why)
        return self.original

    def addresses(self) -> tuple[str, ...]:
        """Return this node's addresses with their prefix lengths, as its YAML says."""
        return addresses_of(self._adapters)

    def endpoints(self) -> list[str]:
        """Return `HOST:PORT` of each address at which this machine listens for peers."""
        return [endpoint(address, self.port) for address in self.addresses()]

    # --- the current cluster ----------------------------------------------------------------------------------

    def here(self) -> Replica:
        """Return the current cluster's local configuration; NotDefined when there is none."""
        if self.replica is None:
            why = f": {self.problem}" if self.problem else ""
            hint = "use `covey cluster define`, `node define`, or `node move --to` one that `cluster ls` shows"
            raise NotDefined(f"this node is in no cluster{why}", hint)
        return self.replica

    @property
    def folder(self) -> ClusterLayout:
        return self.layout.cluster(self.here().cluster.id)

    @property
    def networks(self) -> Networks:
        """The tables of the current cluster, ready for questions."""
        here = self.here()
        found = self._networks
        if found is None or found.table != here.networks or found.nodes != here.nodes.nodes:
            found = self._networks = Networks(here.networks, here.nodes.nodes)
        return found

    @property
    def routes(self) -> Routes:
        """In which order this node tries its peers' addresses, for which service, and from where."""
        networks, own = self.networks, self.here().node.number
        if self._routes is None or self._routes[0] is not networks or self._routes[1] != own:
            self._routes = (networks, own, routes_of(networks, own))
        return self._routes[2]

    @property
    def server(self) -> bool:
        """Whether this node runs a registry server of its current cluster."""
        return self.replica is not None and self.replica.node.number in self.replica.servers.running

    def definition_in(self, cluster_id: str) -> NodeDefinition | None:
        """Return this node's local definition of a cluster, whether current or not. Blocks."""
        known = self.store.clusters().defined()
        return self.store.node(cluster_id) if cluster_id in known else None

    def replica_of(self, cluster_id: str) -> Replica:
        """Return the local files of a cluster that this node is defined to; raises what is wrong with them. Blocks."""
        cluster, node = self.store.cluster(cluster_id), self.store.node(cluster_id)
        if cluster is None or node is None:
            where = self.layout.cluster(cluster_id).configuration
            raise NotFound(f"{where} lacks the definition of this node", "define the node again")
        if node.key != self.key:
            raise _another_key(node, cluster, self.curve)
        store = self.store
        networks = store.networks(cluster_id)
        return Replica(cluster, node, store.servers(cluster_id), store.nodes(cluster_id), networks)

    def serves(self, cluster_id: str) -> bool:
        """Whether this node runs a registry server of a cluster, by its local files. Blocks."""
        replica = self.replica_of(cluster_id)
        return replica.node.number in replica.servers.running

    def _settings_of_now(self) -> dict[str, Any]:
        """The YAML's settings, in which a blocked controller is switched off."""
        controllers = self.settings["controllers"]
        off = {name: {**(controllers.get(name) or {}), "enabled": False} for name in self.blocked}
        return {**self.settings, "controllers": {**controllers, **off}}

    async def block(self, blocked: dict[str, Blocked]) -> None:
        """Keep which controllers may not run here."""
        await asyncio.to_thread(self.store.save_blocked, blocked)
        self.blocked = blocked

    def local(self) -> dict[str, Any]:
        """Return the local configuration as components get it (SPEC 3.2)."""
        replica = self.replica
        own: dict[str, Any] = {
            "state_dir": str(self.layout.state_dir),
            "folder": "",
            "cluster_id": "",
            "cluster_name": "",
            "cluster": None,
            "node": 0,
            "node_name": self.name,
            "node_id": self.original or "",
            "definition_id": "",
            "boot_id": self.boot_id,
            "servers": [],
            "learners": [],
            "stopped": [],
            "primary_server": None,
            "nodes": {},
            "ways": {},
            "server_lists": {},
            "server_order": [],
            "settings": self._settings_of_now(),
        }
        if replica is None:
            return own
        return own | {
            "folder": str(self.folder.folder),
            "cluster_id": replica.cluster.id,
            "cluster_name": replica.cluster.name,
            "cluster": plain(replica.cluster),
            "node": replica.node.number,
            "node_name": replica.node.name,
            "node_id": replica.node.id,
            "definition_id": replica.node.definition_id,
            "servers": list(replica.servers.servers),
            "learners": list(replica.servers.learners),
            "stopped": list(replica.servers.stopped),
            "primary_server": replica.servers.primary,
            "ways": plain(self.routes.ways),
            "server_order": self._server_order(replica),
            "server_lists": {
                number: peer.lists.get("registry", peer.addresses)
                for number, peer in self.routes.peers.items()
                if number in replica.servers.all
            },
            "nodes": {number: plain(node) for number, node in sorted(replica.nodes.nodes.items())},
        }

    def _server_order(self, replica: Replica) -> list[int]:
        """Return the registry servers in the order in which this node tries their addresses."""
        networks = self.networks
        places = [Place(n, each) for n in replica.servers.running for each in networks.addresses(n)]
        chosen, _ = networks.choose("registry", replica.node.number, places)
        return list(dict.fromkeys(each.node for each in chosen))

    def prepared(self, transaction: str) -> Prepared:
        """Return how this node presents itself to a cluster that wants it."""
        return Prepared(transaction, self.original or "", self.name, self.addresses(), self.port, self.key)

    # --- changing ---------------------------------------------------------------------------------------------

    async def refresh(self, change: Callable[[Replica], Replica]) -> list[str]:
        """Renew the local copy of the current cluster: write what changed, tell the broker, return what it was."""
        async with self._refreshing:
            old = self.here()
            new = change(old)
            changed = [name for name in Replica.__struct_fields__ if getattr(new, name) != getattr(old, name)]
            if changed:
                await self._save(new, changed)
                if new.cluster.name != old.cluster.name:
                    self.clusters = await asyncio.to_thread(self.store.commit_cluster, new.cluster, point=False)
                self.replica = new
            await self.tell_broker()
            # the registry's component changes what it is here, and whom it lets in
            same = (new.nodes.nodes, new.networks) == (old.nodes.nodes, old.networks)
            if not same or not new.servers.same_nodes(old.servers):
                await self.bus.publish("dcm.local", {"servers": plain(new.servers)})
            return changed

    async def save_again(self) -> None:
        """Write what found no room on the disk, if there was anything."""
        async with self._refreshing:
            if self._unsaved and self.replica is not None:
                await self._save(self.replica, [])

    async def _save(self, new: Replica, changed: list[str]) -> None:
        """Write these parts of the local copy. On a full disk what can be read again from the registry waits for room:
        this node must know its peers and servers now, and where it stands on the disk only at its next start."""
        names = {*changed, *self._unsaved}
        try:
            await asyncio.to_thread(self.store.save, new.cluster.id, *(getattr(new, name) for name in sorted(names)))
        except OSError as why:
            if why.errno not in FULL or not names <= CACHED:
                raise
            if not self._unsaved:
                log.error("the local copy of the configuration cannot be written, it is tried again: %s", why)
            self._unsaved = names
        else:
            self._unsaved = set()

    async def enter(self) -> None:
        """Take the files of the cluster that the target pointer names now; the broker is not told yet."""
        if self.replica is None or self.replica.cluster.id != self.clusters.target:
            self._unsaved = set()
            await asyncio.to_thread(self.load)

    async def tell_repairs(self) -> None:
        """Write down which damaged files were replaced by their spares."""
        while self.store.repaired:
            path = self.store.repaired.pop()
            log.error("%s was damaged or missing, and its version before stands in for it", path)
            await self.audit("dcm", "local_repaired", "done", path=path)

    async def reload(self) -> None:
        """Read the files again, because something was defined or erased, and tell the broker. While the node is in a
        cluster it stays with what it has of that one, and looks only which clusters there are."""
        if self.boot_id:
            self.clusters = await asyncio.to_thread(self.store.clusters)
            return
        self._unsaved = set()
        await asyncio.to_thread(self.load)
        await self.tell_broker()

    async def tell_broker(self, again: bool = False) -> None:
        """Tell the broker who this node is and where its peers are, if that changed (or `again`)."""
        info: dict[str, Any] = {}
        peers: dict[int, Any] = {}
        ways: dict[str, Any] = {}
        if self.replica is not None:
            own, cluster = self.replica.node, self.replica.cluster
            info = {"number": own.number, "name": own.name, "id": own.id, "boot_id": self.boot_id}
            info |= {"cluster_id": cluster.id, "cluster_name": cluster.name}
            peers, ways = msgspec.to_builtins(self.routes.peers), msgspec.to_builtins(self.routes.ways)
        if again or (info, peers, ways) != self._told:
            await self.bus.call("bus", "configure", info=info, peers=peers, ways=ways)
            self._told = (info, peers, ways)

    async def audit(self, who: str, what: str, outcome: str, uid: int | None = None, **particulars: Any) -> None:
        """Write an entry of the audit log; `uid` None: the DCM itself, or a user that nobody proved.

        A disk that refuses is logged, and stops nobody.
        """
        try:
            await asyncio.to_thread(self.audit_log.append, who, uid, what, outcome, **particulars)
        except OSError as why:
            log.error("the audit log cannot be written: %s", why)


def _another_key(node: NodeDefinition, cluster: ClusterDefinition, curve: bool) -> KeyChanged:
    was = f"with the key {node.key[:16]}…" if node.key else "without a key, in mode open"
    now = "another one" if curve and node.key else "a key now" if curve else "mode open now"
    return KeyChanged(
        f"node {node.number} was defined to {cluster.name} {was}, and its YAML gives it {now}: nobody would trust it",
        "put back the key file (and `security: mode`) of then; or `covey node forget`, and define the node again",
    )


def servers_from(value: Any, revision: int) -> ServerList:
    """Return the server list that the registry holds at /cluster/servers."""
    learners, stopped = tuple(value.get("learners", ())), tuple(value.get("stopped", ()))
    return ServerList(tuple(value["servers"]), value.get("primary"), revision, learners, stopped)


def _settings(config: Any) -> dict[str, Any]:
    """Return the sections of the YAML that components read, as plain data; durations are seconds."""
    sections = {}
    for name in ("liveness", "controllers"):
        section = getattr(config, name, None)
        if isinstance(section, dict):
            section = {key: _dump(value) for key, value in section.items()}
        sections[name] = _dump(section) if section is not None else {}
    sections["folder"] = str(getattr(config, "folder", ""))  # what paths in options count from
    key = getattr(config.security, "key", None)
    sections["lab"] = bool(getattr(config, "lab", False))
    sections["security"] = {"mode": str(config.security.mode), "key": str(key.file) if key else ""}
    return sections


def _dump(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else msgspec.to_builtins(value)

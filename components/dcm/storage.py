"""Keep the DCM's local files whole: written aside, synced, renamed, and read only when they are what was written.

Knows the layout and the definitions, nothing of the bus or the registry. A file is JSON a person can read, with the
kind of the document and a checksum; it is accepted only if writing its content again gives the same bytes, so a cut,
a flip and an edit are all seen (`LocalDamaged`, naming the path). What others hold, too (the cluster's definition, the
servers, the other nodes), has its version before beside it, as `NAME.spare`: a damaged file is put aside, as
`NAME.damaged`, and the spare takes its place until the join brings the newest. Nothing stands in for the others.

Odd: `Store.change` reads, changes and writes `clusters.json` under one lock; it is the only way to change that file,
and each of its writes is the commit point of an operation.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ...errors import LocalDamaged
from .definitions import (
    Blocked,
    BlockList,
    ClusterDefinition,
    Clusters,
    KnownCluster,
    NetworkTable,
    NodeDefinition,
    NodeTable,
    Replacement,
    Replica,
    ServerList,
    plain,
)
from .layout import Layout
from .token import spend

FORMAT = 1
SECRET_MODE = 0o600
"""Of `clusters.json`, which holds the secrets of join tokens."""

CACHED = (ClusterDefinition, ServerList, NodeTable, NetworkTable)
"""What this node has a copy of, and the cluster the truth."""

T = TypeVar("T")


def render(kind: str, content: Any) -> bytes:
    """Return the bytes of a document: always the same for the same content."""
    document: dict[str, Any] = {"covey": kind, "format": FORMAT, "content": content}
    bare = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    document["checksum"] = "blake2b:" + hashlib.blake2b(bare, digest_size=16).hexdigest()
    return (json.dumps(document, sort_keys=True, ensure_ascii=False, indent=2) + "\n").encode()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable (what a rename or a removal changed)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder, durably, and its missing parents."""
    if folder.is_dir():
        return
    if not folder.parent.is_dir():
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def write_synced(path: Path, data: bytes, flags: int, mode: int) -> None:
    """Write to a file opened with these flags (it is made if need be) and return when the bytes are on the disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, mode)
    try:
        with os.fdopen(handle, "wb", closefd=False) as file:
            file.write(data)
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, data: bytes, mode: int = 0o644, *, spare: bool = False) -> None:
    """Replace a file's content: after a crash at any moment it holds the old bytes or the new ones.

    With `spare` the old bytes are kept beside it, and for a moment they are only there.
    """
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)  # left by a crash, perhaps with a mode that others can read
    write_synced(aside, data, os.O_TRUNC, mode)
    if spare and path.exists():
        path.replace(spare_of(path))
    aside.replace(path)
    sync_folder(path.parent)


def spare_of(path: Path) -> Path:
    """Return where the version before of a file is."""
    return path.with_name(f"{path.name}.spare")


def remove_file(path: Path) -> None:
    """Remove a file durably; it may be gone already."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync_folder(path.parent)


def write_document(path: Path, kind: str, content: Any, mode: int = 0o644, *, spare: bool = False) -> None:
    """Write a document; `content` is a definition or plain JSON data. `spare` as for `write_file`."""
    write_file(path, render(kind, plain(content)), mode, spare=spare)


def read_document(path: Path, kind: str, type_: type[T]) -> T | None:
    """Return a document's content as `type_`, None when there is no file; anything not whole is `LocalDamaged`."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as why:
        raise LocalDamaged(
            f"{path} cannot be read: {why.strerror or why}", "the daemon must be able to read it", path=str(path)
        ) from None
    try:
        document = json.loads(data)
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']!r}, this covey reads format {FORMAT}")
        if render(document["covey"], document["content"]) != data:
            raise ValueError("its checksum is wrong: it was cut or edited")
        if document["covey"] != kind:
            raise ValueError(f"it is a {document['covey']}, not a {kind}")
        return msgspec.convert(document["content"], type_, str_keys=True)
    except (ValueError, KeyError, TypeError, RecursionError) as why:
        reason = f"{why}" if isinstance(why, (ValueError, msgspec.ValidationError)) else "it is no document of covey"
        raise LocalDamaged(
            f"{path} is damaged: {reason}; it was not used and not changed",
            "put the file back from a copy, or move it away and define the node again",
            path=str(path),
        ) from None


def _present(path: Path, found: T | None) -> T:
    """Return what a file holds that every defined cluster has; without it the others are only half of the truth."""
    if found is None:
        raise LocalDamaged(
            f"{path} is missing, and nothing stands in for it",
            "put the file back from a copy, or define the node again",
            path=str(path),
        )
    return found


class Store:
    """The local files of one state folder. Every method blocks for the disk; safe to call from several threads."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.repaired: list[str] = []
        """Files that were damaged, and for which their spare stands since."""
        self._lock = threading.RLock()

    def prepare(self) -> None:
        """Make the folders that every daemon has."""
        for folder in self.layout.folders:
            make_folder(folder)

    # --- which clusters ---------------------------------------------------------------------------------------

    def clusters(self) -> Clusters:
        found = read_document(self.layout.clusters_file, "clusters", Clusters)
        if found is None and (left := self._cluster_folders()):
            raise LocalDamaged(
                f"{self.layout.clusters_file} is missing, and this node has data of the cluster {', '.join(left)}",
                "put the file back from a copy, or move those folders away and define the node again",
                path=str(self.layout.clusters_file),
            )
        return found or Clusters()

    def _cluster_folders(self) -> list[str]:
        """Return the ids of the clusters with a folder here: none of them is made before the list of clusters is."""
        files = self.layout.state_dir.glob("*/configuration/node.json")
        return sorted(file.parent.parent.name for file in files)

    def change(self, changed: Callable[[Clusters], Clusters]) -> Clusters:
        """Write `changed(what is there)`, unless it is the same; return it."""
        with self._lock:
            before = self.clusters()
            after = changed(before)
            if after != before:
                write_document(self.layout.clusters_file, "clusters", after, SECRET_MODE)
            return after

    def blocked(self) -> dict[str, Blocked]:
        """Return the controllers that may not run on this node."""
        found = read_document(self.layout.blocked_file, "blocked", BlockList)
        return found.controllers if found else {}

    def save_blocked(self, blocked: dict[str, Blocked]) -> None:
        write_document(self.layout.blocked_file, "blocked", BlockList(blocked))

    # --- one cluster ------------------------------------------------------------------------------------------

    def cluster(self, cluster_id: str) -> ClusterDefinition | None:
        return self._cached(self.layout.cluster(cluster_id).cluster_file, "cluster definition", ClusterDefinition)

    def node(self, cluster_id: str) -> NodeDefinition | None:
        return read_document(self.layout.cluster(cluster_id).node_file, "node definition", NodeDefinition)

    def servers(self, cluster_id: str) -> ServerList:
        path = self.layout.cluster(cluster_id).servers_file
        return _present(path, self._cached(path, "registry server list", ServerList))

    def nodes(self, cluster_id: str) -> NodeTable:
        path = self.layout.cluster(cluster_id).nodes_file
        return _present(path, self._cached(path, "node table", NodeTable))

    def networks(self, cluster_id: str) -> NetworkTable:
        path = self.layout.cluster(cluster_id).networks_file
        return _present(path, self._cached(path, "network table", NetworkTable))

    def replacement(self, cluster_id: str) -> Replacement | None:
        return read_document(self.layout.cluster(cluster_id).replacement_file, "identity replacement", Replacement)

    def save(self, cluster_id: str, *values: Any) -> None:
        """Write definitions of a cluster, each in its own file. The file follows from the value's type."""
        files = self.files(cluster_id)
        with self._lock:
            for value in values:
                path, kind = files[type(value)]
                write_document(path, kind, value, spare=isinstance(value, CACHED))

    def files(self, cluster_id: str) -> dict[type[Any], tuple[Path, str]]:
        """Return the file of each definition of a cluster, with its kind, by the type of what is in it."""
        layout = self.layout.cluster(cluster_id)
        return {
            ClusterDefinition: (layout.cluster_file, "cluster definition"),
            NodeDefinition: (layout.node_file, "node definition"),
            ServerList: (layout.servers_file, "registry server list"),
            NodeTable: (layout.nodes_file, "node table"),
            NetworkTable: (layout.networks_file, "network table"),
            Replacement: (layout.replacement_file, "identity replacement"),
        }

    def _cached(self, path: Path, kind: str, type_: type[T]) -> T | None:
        """Return what a file holds that others hold, too; when it is damaged or missing, its spare takes its place."""
        spare = spare_of(path)
        try:
            found = read_document(path, kind, type_)
            if found is not None or not spare.exists():
                return found
        except LocalDamaged:
            if not spare.exists():
                raise
        with self._lock:
            found = read_document(spare, kind, type_)  # raises when it is damaged, too
            if path.exists():
                path.replace(path.with_name(f"{path.name}.damaged"))
            write_document(path, kind, found)
            self.repaired.append(str(path))
            return found

    def drop_replacement(self, cluster_id: str) -> None:
        path = self.layout.cluster(cluster_id).replacement_file
        with self._lock:
            if path.exists():  # at nearly every join it is not, and then the disk is left alone
                remove_file(path)

    def make_cluster(self, cluster: ClusterDefinition) -> None:
        """Note that a cluster's folder is being made, then make it: after a crash it is swept away or finished."""
        known = KnownCluster(cluster.name, "making")
        self.change(lambda now: msgspec.structs.replace(now, clusters={**now.clusters, cluster.id: known}))
        for folder in self.layout.cluster(cluster.id).folders:
            make_folder(folder)

    def commit_replica(self, replica: Replica) -> None:
        """Write all files of a cluster below the folder that `make_cluster` made, with their spares."""
        cached = (replica.cluster, replica.servers, replica.nodes, replica.networks)
        self.save(replica.cluster.id, *cached)
        self.save(replica.cluster.id, replica.node, *cached)

    def commit_cluster(
        self, cluster: ClusterDefinition, *, finished: str = "", point: bool = True, used: str = ""
    ) -> Clusters:
        """Make a cluster defined, in one write: list it, end the pending define `finished`, move the pointers to it.

        The pointers move only when `point` is true or when they point nowhere. `used` is the id of the join token that
        the define used up.
        """

        def changed(now: Clusters) -> Clusters:
            move = point or now.current is None
            return msgspec.structs.replace(
                now,
                clusters={**now.clusters, cluster.id: KnownCluster(cluster.name)},
                current=cluster.id if move else now.current,
                target=cluster.id if move else now.target,
                pending={key: value for key, value in now.pending.items() if key != finished},
                tokens={key: spend(value) if key == used else value for key, value in now.tokens.items()},
            )

        return self.change(changed)

    def erase_cluster(self, cluster_id: str) -> Clusters:
        """Remove a cluster from this node: from the list, from the pointers, then its folder. Can be repeated."""

        def leave(now: Clusters) -> Clusters:
            known = now.clusters.get(cluster_id, KnownCluster(""))
            erasing = {**now.clusters, cluster_id: msgspec.structs.replace(known, state="erasing")}
            current = None if now.current == cluster_id else now.current
            target = current if now.target == cluster_id else now.target
            # the operator's word was about this definition; a new one joins
            offline = now.offline and now.current != cluster_id
            return msgspec.structs.replace(now, clusters=erasing, current=current, target=target, offline=offline)

        def forget(now: Clusters) -> Clusters:
            kept = {key: value for key, value in now.clusters.items() if key != cluster_id}
            return msgspec.structs.replace(now, clusters=kept)

        with self._lock:
            self.change(leave)
            folder = self.layout.cluster(cluster_id).folder
            if folder.is_dir():
                shutil.rmtree(folder)
                sync_folder(folder.parent)
            return self.change(forget)

    def sweep(self) -> list[str]:
        """Finish what a crash left half done; return the ids of the folders that went.

        A folder `making` whose define is still in doubt stays: the define machine decides over it.
        """
        now = self.clusters()
        doubtful = {pending.cluster.id for pending in now.pending.values()}
        swept = [
            cluster_id
            for cluster_id, known in sorted(now.clusters.items())
            if known.state == "erasing" or (known.state == "making" and cluster_id not in doubtful)
        ]
        for cluster_id in swept:
            self.erase_cluster(cluster_id)
        return swept

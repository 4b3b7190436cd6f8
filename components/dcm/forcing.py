"""Force: go on from one copy of the registry when a majority of its servers is lost for good.

The operator's word, offline. `survey` looks at the copies in some state folders and says what would be done;
`carry_out` makes the best of them the first copy of a new generation, with its node as the only server. Copies of lower
generations are refused from then on, whatever they hold. The old files are put aside, not removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ...errors import Ambiguous, CoveyError, NotDefined, Refused
from ..registry import copies, generation
from ..registry.backup import definition
from ..registry.force import Copy, best, look
from ..registry.keys import unpack_value
from .definitions import ClusterDefinition, NodeDefinition, ServerList
from .entries import node_key
from .stopped import Stopped


class Found(msgspec.Struct, frozen=True):
    """What one state folder holds of the cluster."""

    at: Stopped
    node: NodeDefinition
    copy: Copy


class Survey(msgspec.Struct, frozen=True):
    """All copies that were looked at, and the one to go on from."""

    cluster: ClusterDefinition
    found: tuple[Found, ...]
    best: Found

    @property
    def servers(self) -> list[int]:
        """The voters that the best copy names."""
        return self.best.copy.servers()

    def missing(self) -> list[int]:
        """Return the servers of which no sound copy is here."""
        here = {found.node.number for found in self.found if found.copy.sound}
        return [number for number in self.servers if number not in here]

    def plain(self) -> dict[str, Any]:
        """Return it for people and programs."""
        kept = self.best.copy
        return {
            "cluster": {"name": self.cluster.name, "id": self.cluster.id},
            "copies": [_plain(found) for found in self.found],
            "best": self.best.node.number,
            "state": str(self.best.at.layout.state_dir),
            "servers": self.servers,
            "missing": self.missing(),
            "doubtful": list(kept.doubtful) if kept.doubtful else None,
            "unsure": kept.unsure,
        }


def _plain(found: Found) -> dict[str, Any]:
    copy = found.copy
    return {
        "state": str(found.at.layout.state_dir),
        "path": str(copy.folder),
        "aside": copy.aside,
        "number": found.node.number,
        "sound": copy.sound,
        "generation": copy.gen,
        "incarnation": list(copy.incarnation) if copy.sound else None,
        "committed": copy.committed if copy.sound else None,
        "revision": copy.store.revision if copy.sound else None,
        "damaged": [{"path": each.path, "position": each.position, "reason": each.reason} for each in copy.damaged],
    }


def survey(folders: Sequence[Stopped], wanted: str | None = None) -> Survey:
    """Look at the copies of one cluster in these state folders; `wanted` is its name or id (None: there is only one).

    Raises `NotDefined`, `Ambiguous`, and `Refused` when none of the copies can be gone on from.
    """
    chosen: dict[str, str] = {}
    for at in folders:
        for cluster_id, known in at.store.clusters().defined().items():
            if wanted in (None, cluster_id, known.name):
                chosen[cluster_id] = known.name
    if len(chosen) > 1:
        listed = ", ".join(f"{name} ({cluster_id})" for cluster_id, name in sorted(chosen.items()))
        raise Ambiguous(f"these folders know several clusters: {listed}", "name one: --cluster ID")
    if not chosen:
        raise NotDefined(
            "no node of these state folders is defined to " + (wanted or "a cluster"),
            "name the state folders of registry servers",
        )
    [cluster_id] = chosen
    found = [each for at in folders if (each := _look(at, cluster_id))]
    copy = best([each.copy for each in found])
    chosen_one = next(each for each in found if each.copy is copy)
    _check_defined(chosen_one)
    cluster = definition(copy.store)
    return Survey(ClusterDefinition(cluster["name"], cluster_id), tuple(found), chosen_one)


def _look(at: Stopped, cluster_id: str) -> Found | None:
    if cluster_id not in at.store.clusters().defined():
        return None
    node = at.store.node(cluster_id)
    if node is None:
        return None
    return Found(at, node, look(at.layout.cluster(cluster_id).folder, cluster_id))


def _check_defined(found: Found) -> None:
    item = found.copy.store.get(node_key(found.node.number))
    value = unpack_value(item.value) if item else None
    if not isinstance(value, dict) or value.get("definition_id") != found.node.definition_id:
        raise Refused(
            f"the best copy does not list its own node {found.node.number}: it was undefined",
            "covey registry restore FILE goes on from a backup",
        )


def carry_out(survey: Survey) -> tuple[int, int, int]:
    """Rewrite the best copy, durably; return its new incarnation. After a crash it is the old one or the new one."""
    at, node, copy = survey.best.at, survey.best.node, survey.best.copy
    made = generation.begin(copy.store, copy.chain, node.number, promised=copy.promised)
    store = made.store
    before, after = list(copy.incarnation), (store.gen, store.epoch, store.index)
    about = {"cluster": survey.cluster.id, "name": survey.cluster.name, "number": node.number}
    with at.audited(
        "registry_force", **about, before=before, after=list(after), doubtful=copy.doubtful, missing=survey.missing()
    ):
        try:
            copies.put(at.layout.cluster(survey.cluster.id).folder, made)
            at.store.save(survey.cluster.id, ServerList((node.number,), node.number, store.revision))
        except OSError as why:
            raise CoveyError(
                f"{copy.folder} cannot be rewritten: {why.strerror or why}", "it is as it was; make room and try again"
            ) from why
    return after

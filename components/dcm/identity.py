"""What follows when this machine wants to join: the verdict over the three copies of its id (SPEC 5).

`judge` compares the original id (what the machine says: `sources.py`), the local and the global copy, and is pure: a
table over two comparisons, with the guards of SPEC 5.4 to 5.6 before and after it. What cannot be decided gets no
scenario, and nothing is ever deleted for it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .definitions import NodeDefinition, Replacement


class Copy(msgspec.Struct, frozen=True):
    """What is compared: an id with the cluster, number and definition it belongs to."""

    cluster_id: str
    number: int
    definition_id: str
    id: str


class Elsewhere(msgspec.Struct, frozen=True):
    """What else the cluster knows that bears on a verdict (SPEC 5.5).

    `boot` says where this node number is online under another boot id, `owner` which other node has the original id;
    None: nowhere, nobody.
    """

    boot: str | None = None
    owner: str | None = None


NOWHERE = Elsewhere()
Action = Literal["join", "replace", "erase", "wait", "refuse"]


class Verdict(msgspec.Struct, frozen=True):
    """The three ids, the scenario (None: undecided) and what follows. `code` is an error code when it is a refusal."""

    original: str | None
    local: str | None
    global_: str | None = msgspec.field(name="global")
    scenario: Literal[1, 2, 3, 4] | None
    action: Action
    reason: str
    code: str = ""


# (original = local, local = global) → scenario, action, reason: the table of SPEC 5.2
SCENARIOS: dict[tuple[bool, bool], tuple[Literal[1, 2, 3, 4], Action, str]] = {
    (True, True): (1, "join", "all three ids agree: the node joins"),
    (True, False): (2, "erase", "the node was undefined while it was away: its local definition is removed"),
    (False, True): (3, "replace", "its identity hardware was replaced: local and global id follow, then it joins"),
    (False, False): (
        4,
        "erase",
        "it was undefined while away and its identity changed: its local definition is removed",
    ),
}


def copy_of(cluster_id: str, node: NodeDefinition | None) -> Copy | None:
    """Return what is compared of a definition, None when there is none."""
    return None if node is None else Copy(cluster_id, node.number, node.definition_id, node.id)


def judge(
    original: str | None,
    local: Copy | None,
    global_: Copy | None,
    *,
    known: bool = True,
    why: str = "",
    replacement: Replacement | None = None,
    elsewhere: Elsewhere = NOWHERE,
) -> Verdict:
    """Compare the three copies and say what must be done. Pure.

    `global_` None with `known` means that a current read found no such node; `known=False` that nothing current could
    be read, for the reason `why`. `replacement` is the local record of a scenario 3 that was begun and not finished.
    """

    def verdict(scenario: Literal[1, 2, 3, 4] | None, action: Action, reason: str, code: str = "") -> Verdict:
        local_id, global_id = local.id if local else None, global_.id if global_ else None
        return Verdict(original, local_id, global_id, scenario, action, reason, code)

    if local is None:
        advice = "; the cluster lists its id: define it again" if elsewhere.owner else ""
        return verdict(None, "wait", f"this node has no local definition of the cluster{advice}", "dcm.not_defined")
    if original is None:
        return verdict(None, "wait", why or "the original id cannot be read", "identity.unreadable")
    if not known:
        return verdict(None, "wait", why or "the global configuration cannot be read")
    scenario: Literal[1, 2, 3, 4]
    action: Action
    if replacement is not None and _begun(local, global_, replacement) and local != global_:
        # the global id is further than the local one: it is completed, never judged as 2 or 4 (SPEC 5.4)
        scenario, action, reason = 3, "replace", "a replacement of its identity was begun: it is completed"
    else:
        scenario, action, reason = SCENARIOS[(original == local.id, local == global_)]
    if scenario in (1, 3) and elsewhere.boot:
        reason = f"this node is online already at {elsewhere.boot}: one of the two machines is a clone"
        return verdict(None, "refuse", reason, "identity.clone")
    if scenario == 3 and elsewhere.owner:
        reason = f"the original id belongs to {elsewhere.owner}: one of the two machines is a clone"
        return verdict(None, "refuse", reason, "identity.clone")
    return verdict(scenario, action, reason)


def _begun(local: Copy, global_: Copy | None, replacement: Replacement) -> bool:
    """Whether the global copy stands at the old or the new id of a replacement under way, all else being equal."""
    if global_ is None or msgspec.structs.replace(local, id=global_.id) != global_:
        return False
    return global_.id in (replacement.old, replacement.new)

"""How the servers stand, as `registry status` shows it. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import membership
from .loaded import Damage
from .messages import Leading
from .raft import Raft
from .states import RETRIED, WHY_CLOSED, State
from .store import Store


def why_closed(raft: Raft, damaged: Sequence[Damage], full: str) -> str:
    """Return why users may not write, as far as this server knows. `full`: why a lone primary's disk took nothing."""
    why = WHY_CLOSED[raft.state]
    if raft.state is State.DAMAGED:
        return f"{why}: {damaged[0].path} at byte {damaged[0].position}" if damaged else why
    if raft.leader and not raft.leads:
        return f"the primary, node {raft.leader}, has not opened writes yet"
    reason = full if raft.state in RETRIED else raft.no_room
    return f"{why}: {reason}" if reason else why


def of(
    now: float,
    raft: Raft,
    store: Store,
    leading: Leading,
    closed_because: str,
    damaged: Sequence[Damage],
    repaired: Sequence[Damage],
) -> dict[str, Any]:
    """Return the status: phase, incarnation, revision, primary, servers, what they tolerate, what is damaged.

    What a damaged copy holds is not known, so it says null instead of a number. Only the primary knows of the others.
    """
    sound = raft.state is not State.DAMAGED
    servers = raft.log.servers
    return {
        "phase": leading.phase,
        "writable": leading.writable,
        "closed_because": closed_because or None,
        "incarnation": _incarnation(raft, raft.log.last) if sound else None,
        "epoch": raft.promised,
        "revision": store.revision if sound else None,
        "history_start": store.history_start,
        "keys": len(store),
        "state_hash": f"{store.state_hash:032x}",
        "primary": leading.primary or None,
        "servers": [_server(now, raft, number) for number in membership.all_of(servers) or (raft.node,)],
        "tolerates": membership.tolerates(servers) if servers.voters else 0,
        "damaged": [_plain(damage) for damage in damaged],
        "repaired": [_plain(damage) for damage in repaired],
    }


def _server(now: float, raft: Raft, number: int) -> dict[str, Any]:
    servers, log = raft.log.servers, raft.log
    match: int | None = None
    if number == raft.node:
        sound = raft.state is not State.DAMAGED
        match = log.last if sound else None
        state = "damaged" if not sound else "primary" if raft.leads else "follower"
    else:
        progress = raft.reign.others.get(number) if raft.reign else None
        state = "offline"
        if raft.reign and progress and progress.heard_at > now - raft.settings.election_high:
            match = None if progress.ill else progress.match
            state = "damaged" if progress.ill else "follower"
    if number in servers.learners and state != "offline":
        state = "learner"
    return {
        "number": number,
        "state": state,
        "incarnation": None if match is None else _incarnation(raft, match),
        "lag": None if match is None else log.last - match,
    }


def _incarnation(raft: Raft, index: int) -> list[int] | None:
    place = raft.log.place(index)
    return [raft.gen, place.epoch, index] if place else None


def _plain(damage: Damage) -> dict[str, Any]:
    return {"path": damage.path, "position": damage.position, "reason": damage.reason}

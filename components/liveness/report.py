"""What liveness tells people and other components who ask: plain data, made from what the machine holds.

Changes nothing. View ids are lists and members are dicts here, since this goes to
JSON.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from .messages import Member
from .networks import Networks
from .peers import Peers
from .views import Chain


def member_dict(member: Member) -> dict[str, Any]:
    """One member of a view."""
    return {
        "number": member.number,
        "boot_id": member.boot_id,
        "state": member.state,
        "name": member.name,
    }


def date(at: float) -> str | None:
    """The time of day of a view as RFC 3339 text; None when its leader knew none."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else None


def view_dict(chain: Chain) -> dict[str, Any] | None:
    """The newest view; None when the node has none yet."""
    view = chain.last
    if view is None:
        return None
    return {
        "id": list(view.id),
        "members": [member_dict(m) for m in view.members],
        "hash": view.hash,
        "at": date(view.at),
    }


def views_list(chain: Chain, last: int) -> list[dict[str, Any]]:
    """The last views, oldest first, each with what it changed; for the oldest one kept that may be unknown."""
    found = []
    for view in chain.views[-last:] if last > 0 else []:
        joined, left = chain.change(view)
        found.append(
            {
                "id": list(view.id),
                "members": [m.number for m in view.members],
                "boot_ids": [m.boot_id for m in view.members],
                "joined": [m.number for m in joined],
                "left": [m.number for m in left],
                "at": date(view.at),
                "hash": view.hash,
            }
        )
    return found


def peers_list(peers: Peers, now: float) -> list[dict[str, Any]]:
    """What this node thinks of each node that it observes, by number: as it is on the best of its networks."""
    order = ("alive", "probed", "suspect")
    best: dict[int, tuple[int, float]] = {}
    for peer in peers:
        thought = (order.index(peer.opinion), now - peer.heard)
        best[peer.number] = min(best.get(peer.number, thought), thought)
    return [{"number": n, "state": order[place], "silent_s": round(s, 3)} for n, (place, s) in sorted(best.items())]


def status(
    now: float,
    *,
    phase: str,
    chain: Chain,
    view_at: float,
    quorate: bool,
    leader: tuple[int, int],
    leading: bool,
    peers: Peers,
    tasks_failed: tuple[str, ...],
    late_steps: int,
    networks: Networks,
    waits: float,
) -> dict[str, Any]:
    """Everything a person or another component asks of the liveness of one node."""
    epoch, node = leader
    return {
        "state": phase,
        "view": view_dict(chain),
        "quorate": quorate,
        "frozen": not quorate,
        "leader": {"epoch": epoch, "node": node or None},
        "leading": leading,
        "since_s": round(now - view_at, 3),
        "suspects": sorted({p.number for p in peers if peers.dead(p.number)}),
        "networks": {name: len(nodes) for name, nodes in networks.items() if name},
        "peers": peers_list(peers, now),
        "tasks_failed": list(tasks_failed),
        "late_steps": late_steps,
        "waits_s": round(max(0.0, waits), 3),
    }

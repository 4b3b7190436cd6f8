"""How a copy stands, as `registry status` shows it. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .keys import unpack_value
from .loaded import Damage
from .messages import Leading
from .proposals import SERVERS_KEY
from .store import Store


def servers(store: Store, node: int) -> list[int]:
    """Return the numbers of the registry servers, as the store lists them; `node` when it lists none."""
    item = store.get(SERVERS_KEY)
    value = unpack_value(item.value) if item else None
    listed = value.get("servers") if isinstance(value, dict) else None
    return list(listed) if listed else [node]


def of(
    node: int,
    store: Store,
    epoch: int,
    leading: Leading,
    closed_because: str,
    damaged: Sequence[Damage],
    repaired: Sequence[Damage],
) -> dict[str, Any]:
    """Return the status: phase, incarnation, revision, primary, servers, what they tolerate, what is damaged.

    What a damaged copy holds is not known, so it says null instead of a number.
    """
    incarnation = None if damaged else [store.gen, store.epoch, store.index]
    primary = leading.primary or None
    listed = servers(store, node)
    own = "damaged" if damaged else "primary" if primary else "follower"
    return {
        "phase": leading.phase,
        "writable": leading.writable,
        "closed_because": closed_because or None,
        "incarnation": incarnation,
        "epoch": epoch,
        "revision": None if damaged else store.revision,
        "history_start": store.history_start,
        "keys": len(store),
        "state_hash": f"{store.state_hash:032x}",
        "primary": primary,
        "servers": [
            {
                "number": number,
                "state": own if number == node else "offline",
                "incarnation": incarnation if number == node else None,
                "lag": 0 if number == node and not damaged else None,
            }
            for number in listed
        ],
        "tolerates": (len(listed) - 1) // 2,
        "damaged": [_plain(damage) for damage in damaged],
        "repaired": [_plain(damage) for damage in repaired],
    }


def _plain(damage: Damage) -> dict[str, Any]:
    return {"path": damage.path, "position": damage.position, "reason": damage.reason}

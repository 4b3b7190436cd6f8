"""How a copy stands, as `registry status` shows it. Reads a machine, changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .keys import unpack_value
from .loaded import Damage
from .proposals import SERVERS_KEY
from .store import Store

if TYPE_CHECKING:
    from .machine import RegistryMachine


def servers(store: Store, node: int) -> list[int]:
    """Return the numbers of the registry servers, as the store lists them; `node` when it lists none."""
    item = store.get(SERVERS_KEY)
    value = unpack_value(item.value) if item else None
    listed = value.get("servers") if isinstance(value, dict) else None
    return list(listed) if listed else [node]


def of(machine: RegistryMachine) -> dict[str, Any]:
    """Return the status: phase, incarnation, revision, primary, servers, what they tolerate, what is damaged."""
    store = machine.store
    incarnation = [store.gen, store.epoch, store.index]
    primary = machine.leading.primary or None
    listed = servers(store, machine.node)
    own = "damaged" if machine.damaged else "primary" if primary else "follower"
    return {
        "phase": machine.phase,
        "writable": machine.writable,
        "closed_because": machine.closed_because or None,
        "incarnation": incarnation,
        "epoch": machine.epoch,
        "revision": store.revision,
        "history_start": store.history_start,
        "keys": len(store),
        "state_hash": f"{store.state_hash:032x}",
        "primary": primary,
        "servers": [
            {
                "number": number,
                "state": own if number == machine.node else "offline",
                "incarnation": incarnation if number == machine.node else None,
                "lag": 0 if number == machine.node else None,
            }
            for number in listed
        ],
        "tolerates": (len(listed) - 1) // 2,
        "damaged": [_plain(damage) for damage in machine.damaged],
        "repaired": [_plain(damage) for damage in machine.repaired],
    }


def _plain(damage: Damage) -> dict[str, Any]:
    return {"path": damage.path, "position": damage.position, "reason": damage.reason}

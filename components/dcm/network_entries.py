"""The registry transactions by which networks and subnetworks come, change and go. Pure: tables in, operations out.

`/networks/<name>` and `/subnets/<id>` hold the objects. `/cluster/networks` is written with every change of them and
compared before: so a change is checked against the very table that it changes, whoever changes another part of it
meanwhile, and who watches `/cluster/` hears of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from .definitions import NetworkDefinition, NetworkTable, SubnetDefinition, plain
from .entries import Transaction

NETWORKS = "/networks/"
SUBNETS = "/subnets/"
GUARD = "/cluster/networks"


def table_from(
    networks: Iterable[Mapping[str, Any]], subnets: Iterable[Mapping[str, Any]], revision: int
) -> NetworkTable:
    """Return the table from what the registry holds below /networks/ and /subnets/; raises ValidationError."""
    named = [msgspec.convert(each["value"], NetworkDefinition) for each in networks]
    placed = [msgspec.convert(each["value"], SubnetDefinition) for each in subnets]
    return NetworkTable({each.name: each for each in named}, {each.id: each for each in placed}, revision)


def change(old: NetworkTable, new: NetworkTable, guard: int, value: Any) -> Transaction:
    """Return the transaction from one table to another; `guard` is the revision of the guard, `value` what it held."""
    before, after = _keys(old), _keys(new)
    count = value.get("changes", 0) + 1 if isinstance(value, dict) else 1
    return {
        "compare": [{"key": GUARD, "mod_revision": guard}],
        "then": [
            *({"op": "delete", "key": key} for key in sorted(before.keys() - after.keys())),
            *({"op": "put", "key": key, "value": after[key]} for key in sorted(after) if before.get(key) != after[key]),
            {"op": "put", "key": GUARD, "value": {"changes": count}},
        ],
    }


def _keys(table: NetworkTable) -> dict[str, Any]:
    networks = {f"{NETWORKS}{name}": plain(network) for name, network in table.networks.items()}
    return networks | {f"{SUBNETS}{quote(id, safe=':')}": plain(subnet) for id, subnet in table.subnets.items()}

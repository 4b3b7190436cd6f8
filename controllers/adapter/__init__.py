"""The controller of class `Adapter`: the network interfaces of this node, with the addresses they carry.

All values come from psutil. Odd: an address that a program merely binds (any of 127.0.0.0/8 on Linux) is on no
interface and is not shown. `Up`, `Speed` and the counters are dynamic: in the registry they would be old news.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

from ...errors import ResourceNotFound
from ..contract import Controller, Found, Resource

_COUNTERS = {
    "BytesIn": "bytes_recv",
    "BytesOut": "bytes_sent",
    "PacketsIn": "packets_recv",
    "PacketsOut": "packets_sent",
    "ErrorsIn": "errin",
    "ErrorsOut": "errout",
    "DropsIn": "dropin",
    "DropsOut": "dropout",
}


class Adapter(Controller):
    """Network interfaces."""

    description = "adapter.yaml"

    def discover(self) -> Iterator[Found]:
        """Every interface that the system knows, up or down."""
        addresses = psutil.net_if_addrs()
        for name, state in sorted(psutil.net_if_stats().items()):
            on_it = addresses.get(name, [])
            hardware = [one.address for one in on_it if one.family == psutil.AF_LINK]
            flags = state.flags.split(",")
            yield Found(
                "Adapter",
                key={"Name": name},
                Addresses=_with_prefix(on_it),
                Mac=hardware[0] if hardware else None,
                Mtu=state.mtu,
                Loopback="loopback" in flags,
            )

    def read(self, resource: Resource) -> dict[str, Any]:
        """State and counters of one interface since the system started."""
        name = resource.key["Name"]
        state = psutil.net_if_stats().get(name)
        if state is None:
            raise ResourceNotFound(f"there is no network interface {name} (any more)", "discover again")
        values: dict[str, Any] = {"Up": state.isup, "Speed": state.speed * 1_000_000 or None}
        counters = psutil.net_io_counters(pernic=True, nowrap=False).get(name)
        if counters is not None:
            values |= {attribute: getattr(counters, field) for attribute, field in _COUNTERS.items()}
        return values


def _with_prefix(on_it: Sequence[Any]) -> list[str]:
    """The IP addresses as ADDRESS/PREFIX, v4 first, each kind in order."""
    found: list[ipaddress.IPv4Interface | ipaddress.IPv6Interface] = []
    for one in on_it:
        if one.family not in (socket.AF_INET, socket.AF_INET6):
            continue
        address = ipaddress.ip_address(one.address.partition("%")[0])
        prefix: int = address.max_prefixlen
        if one.netmask:
            prefix = int(ipaddress.ip_address(one.netmask)).bit_count()
        found.append(ipaddress.ip_interface(f"{address}/{prefix}"))
    return [str(one) for one in sorted(set(found), key=lambda one: (one.version, int(one.ip), one.network.prefixlen))]

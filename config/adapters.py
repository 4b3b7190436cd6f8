"""This machine's own addresses, for `adapters: auto`. Knows the system's adapters, not what they are used for."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence


def addresses_of(adapters: Sequence[str]) -> tuple[str, ...]:
    """Return addresses as ADDRESS/PREFIX: those written, or for "auto" the machine's own."""
    return own_addresses() if adapters == "auto" else tuple(str(adapter) for adapter in adapters)


def own_addresses() -> tuple[str, ...]:
    """Return the IPv4 addresses by which other machines could reach this one, each once, in order of its adapters."""
    import psutil

    found = [
        ipaddress.ip_interface(f"{each.address.partition('%')[0]}/{each.netmask}")
        for _, addresses in sorted(psutil.net_if_addrs().items())
        for each in addresses
        if each.family == socket.AF_INET and each.netmask
    ]
    return tuple(dict.fromkeys(str(each) for each in found if not each.is_loopback and not each.is_link_local))

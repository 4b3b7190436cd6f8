"""How many hops an address is away, found with datagrams that live for so many hops alone (Jacobson's traceroute).

Needs no privilege: Linux gives the errors that routers and the target send back to the socket that asked (IP_RECVERR,
ip(7)). Knows no table; blocks, so it belongs in a thread. Where routers say nothing, or a firewall drops it, the answer
is that nobody knows.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
from time import monotonic

MOST = 16
"""Hops; further away nobody puts a node of a cluster."""

WAIT = 0.3
"""Seconds for the answer to one datagram; within a site it takes a millisecond."""

SILENT = 3
"""Datagrams in a row without an answer after which it is given up."""

PORT = 33434
"""The usual first port for this: nobody listens there, so the target says so."""

_ERROR = struct.Struct("@IBBBBII")
_RECVERR = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}
_TTL = {4: (socket.IPPROTO_IP, socket.IP_TTL), 6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)}
_PASSED = {4: 11, 6: 3}
_REFUSED = {4: (3, 3), 6: (1, 4)}
"""ICMP types (RFC 792, RFC 4443): "time exceeded" of a router, and type and code of "nobody listens at that port"."""


def measure(source: str, target: str, wait: float = WAIT) -> int | None:
    """Return the hops from this machine's address `source` to `target` (1: the same subnetwork), None: not known.

    Raises OSError when nothing can be sent from there. Blocks, at worst for `SILENT` times `wait` seconds and a little.
    """
    version = ipaddress.ip_address(target).version
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(*_RECVERR[version], 1)
        probe.setblocking(False)
        probe.bind((source, 0))
        silent = 0
        for hops in range(1, MOST + 1):
            probe.setsockopt(*_TTL[version], hops)
            probe.sendto(b"covey", (target, PORT + hops))
            said = _answer(probe, wait)
            if said is None:
                silent += 1
                if silent == SILENT:
                    return None
                continue
            silent = 0
            if said == _REFUSED[version]:
                return hops
            if said[0] != _PASSED[version]:
                return None
    return None


def _answer(probe: socket.socket, wait: float) -> tuple[int, int] | None:
    """Return type and code of the ICMP message that comes back; None when none does."""
    poll = select.poll()
    poll.register(probe, select.POLLERR)
    end = monotonic() + wait
    while (left := end - monotonic()) > 0 and poll.poll(left * 1000):
        _, parts, _, _ = probe.recvmsg(512, 512, socket.MSG_ERRQUEUE)
        for _, _, data in parts:
            if len(data) >= _ERROR.size:
                _, origin, type, code, *_ = _ERROR.unpack_from(data)
                if origin in (2, 3):  # ICMP, ICMPv6; a local error has 1
                    return type, code
    return None

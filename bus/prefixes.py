"""Find what belongs to an IP address by the longest prefix that holds it. Pure.

A look-up costs one step per length of prefix there is, however many prefixes there are.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefixes(Generic[T]):
    """A table from prefixes, as 10.1.0.0/16 or fd00::/64, to whatever belongs to them."""

    def __init__(self, table: Mapping[str, T]) -> None:
        self._found: dict[tuple[int, int], dict[int, T]] = {}
        for prefix, value in table.items():
            version, length, number = _prefix(prefix)
            self._found.setdefault((version, length), {})[number] = value
        self._lengths = {
            version: sorted((length for each, length in self._found if each == version), reverse=True)
            for version in (4, 6)
        }

    def find(self, address: str) -> T | None:
        """Return what belongs to the longest prefix that holds an address (a prefix length behind it is not read)."""
        version, number, bits = _address(address)
        for length in self._lengths[version]:
            found = self._found[version, length].get(number >> (bits - length))
            if found is not None:
                return found
        return None


@lru_cache(maxsize=65536)
def _address(address: str) -> tuple[int, int, int]:
    """Return version, number and bits of an address."""
    found = ipaddress.ip_address(address.partition("/")[0])
    return found.version, int(found), found.max_prefixlen


@lru_cache(maxsize=4096)
def _prefix(prefix: str) -> tuple[int, int, int]:
    """Return version, length, and the bits that count."""
    found = ipaddress.ip_network(prefix)
    return found.version, found.prefixlen, int(found.network_address) >> (found.max_prefixlen - found.prefixlen)

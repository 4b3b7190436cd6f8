"""Hops to machines behind routers, in namespaces: counted from what the routers say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
from netns_cluster import ip, possible

pytestmark = pytest.mark.skipif(not possible(), reason="needs root, ip(8), namespaces, veth and bridge")

NAMES = [f"cv{os.getpid()}h{number}" for number in range(4)]
"""A machine, two routers in a row, and another machine."""


def address(link: int, end: int, version: int) -> str:
    return f"10.79.{link}.{end}/24" if version == 4 else f"fd79:{link}::{end}/64"


def put(name: str, setting: str, value: int) -> None:
    words = ["ip", "netns", "exec", name, "sh", "-c", f"echo {value} > /proc/sys/net/{setting}"]
    subprocess.run(words, check=True)


@pytest.fixture
def row() -> Iterator[None]:
    try:
        for name in NAMES:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            put(name, "ipv6/conf/default/accept_dad", 0)  # else an address may be used only after a second
        for link, (left, right) in enumerate(pairwise(NAMES), 1):
            ip("-n", left, "link", "add", "right", "type", "veth", "peer", "name", "left", "netns", right)
            for version in (4, 6):
                extra = ["nodad"] if version == 6 else []
                ip("-n", left, "addr", "add", address(link, 1, version), "dev", "right", *extra)
                ip("-n", right, "addr", "add", address(link, 2, version), "dev", "left", *extra)
            ip("-n", left, "link", "set", "right", "up")
            ip("-n", right, "link", "set", "left", "up")
        for version in (4, 6):
            for place in range(3):  # each knows the way to what is right of it
                via = address(place + 1, 2, version).partition("/")[0]
                ip("-n", NAMES[place], f"-{version}", "route", "add", "default", "via", via)
            for place in (2, 3):
                via = address(place, 1, version).partition("/")[0]
                far = "10.79.1.0/24" if version == 4 else "fd79:1::/64"
                ip("-n", NAMES[place], f"-{version}", "route", "add", far, "via", via)
        for name in NAMES[1:3]:
            for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                put(name, setting, 1)
        yield
    finally:
        for name in NAMES:
            with suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)


@pytest.mark.usefixtures("row")
def test_each_router_is_a_hop() -> None:
    program = """
from covey.components.dcm.hops import measure
for source, targets in (
    ("10.79.1.1", ("10.79.1.1", "10.79.1.2", "10.79.2.2", "10.79.3.2", "10.79.3.9")),
    ("fd79:1::1", ("fd79:1::2", "fd79:2::2", "fd79:3::2")),
):
    print(*(measure(source, target) for target in targets))
"""
    words = ["ip", "netns", "exec", NAMES[0], sys.executable, "-c", program]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert done.stdout == "1 1 2 3 None\n1 2 3\n"

"""Two brokers in two network namespaces, a switch between them, and a cable that is pulled and put back."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from covey.bus.session import SILENT
from netns_cluster import ip, possible

NODE = Path(__file__).parent.parent / "support" / "netns_node.py"
PORT = 7400
TOLD = SILENT + 1.5  # a heartbeat under way, the looks, and a busy machine


pytestmark = pytest.mark.skipif(not possible(), reason="needs root, ip(8), namespaces, veth and bridge")


class Switch:
    """A namespace with a bridge, and a namespace for each of two nodes, wired to it."""

    def __init__(self) -> None:
        self.names = {number: f"cv{os.getpid()}n{number}" for number in (0, 1, 2)}

    def make(self) -> None:
        switch = self.names[0]
        for name in self.names.values():
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", switch, "link", "add", "br0", "type", "bridge")
        ip("-n", switch, "link", "set", "br0", "up")
        for number in (1, 2):
            node = self.names[number]
            ip("-n", switch, "link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", node)
            ip("-n", switch, "link", "set", f"p{number}", "master", "br0", "up")
            ip("-n", node, "addr", "add", f"10.77.1.{number}/24", "dev", "eth0")
            ip("-n", node, "link", "set", "eth0", "up")

    def pull(self, how: str) -> None:
        """`carrier`: node 1 sees that its cable is out; `silent`: what it sends leads nowhere."""
        ip("-n", self.names[0], "link", "set", "p1", *(["down"] if how == "carrier" else ["nomaster"]))

    def mend(self, how: str) -> None:
        ip("-n", self.names[0], "link", "set", "p1", *(["up"] if how == "carrier" else ["master", "br0"]))

    def drop(self) -> None:
        for name in self.names.values():
            with suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)


class Node:
    """A node's process, and what it has said."""

    def __init__(self, switch: Switch, folder: Path, number: int) -> None:
        words = ["ip", "netns", "exec", switch.names[number], sys.executable, str(NODE), str(folder), str(number)]
        self.process = subprocess.Popen(
            [*words, str(PORT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.said: list[dict[str, Any]] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def until(self, holds: Callable[[dict[str, Any]], bool], limit: float) -> dict[str, Any]:
        """Read on until a line fits; the line."""
        end = monotonic() + limit
        while True:
            try:
                line = json.loads(self._lines.get(timeout=max(0.01, end - monotonic())))
            except queue.Empty:
                raise AssertionError(f"not within {limit} s; said: {self.said[-10:]}") from None
            self.said.append(line)
            if holds(line):
                return line

    def end(self) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.close()
        return self.until(lambda line: line["what"] == "end", 20.0)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)


@pytest.fixture
def switch() -> Iterator[Switch]:
    made = Switch()
    try:
        made.make()
        yield made
    finally:
        made.drop()


@pytest.fixture
def nodes(switch: Switch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    folder = Path(f"/tmp/cv{os.getpid()}")  # short: a socket's path has at most 107 bytes
    one, two = Node(switch, folder, 1), Node(switch, folder, 2)
    try:
        for each in (one, two):
            each.until(lambda line: line["what"] == "answered", 30.0)
        yield one, two
    finally:
        one.kill()
        two.kill()
        shutil.rmtree(folder, ignore_errors=True)


def is_peer(state: str) -> Callable[[dict[str, Any]], bool]:
    return lambda line: line["what"] == "peer" and line["state"] == state


def check(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Nothing was applied twice or out of order, and whoever was answered was heard."""
    for asker, book in ((one, two), (two, one)):
        assert book["asked"] == sorted(set(book["asked"]))
        assert set(asker["answered"]) <= set(book["asked"])
        assert len(asker["answered"]) > 50, asker


@pytest.mark.parametrize("how", ["silent", "carrier"])
def test_a_pulled_cable_is_told_on_both_sides_and_traffic_resumes(
    switch: Switch, nodes: tuple[Node, Node], how: str
) -> None:
    switch.pull(how)
    pulled = monotonic()
    for node in nodes:
        down = node.until(is_peer("down"), 15.0)
        assert down["at"] - pulled < TOLD, down
        assert node.until(lambda line: line["what"] == "failed", 5.0)["code"] == "bus.unreachable"
    switch.mend(how)
    mended = monotonic()
    for node in nodes:
        first = node.until(lambda line: line["what"] == "answered" and line["at"] > mended, 15.0)["count"]
        node.until(lambda line, first=first: line["what"] == "answered" and line["count"] >= first + 100, 15.0)  # type: ignore[misc]
    check(nodes[0].end(), nodes[1].end())


def test_a_short_break_is_not_told_and_nothing_is_lost(switch: Switch, nodes: tuple[Node, Node]) -> None:
    switch.pull("silent")
    with pytest.raises(AssertionError, match="not within"):
        nodes[0].until(is_peer("down"), 2.0)
    switch.mend("silent")
    with pytest.raises(AssertionError, match="not within"):
        nodes[0].until(is_peer("down"), 4.0)
    ended = monotonic()
    one, two = nodes[0].end(), nodes[1].end()
    check(one, two)
    for node, asker, book in ((nodes[0], one, two), (nodes[1], two, one)):
        first = asker["answered"][0]  # those before it found nobody there yet
        failed = [line for line in node.said if line["what"] == "failed" and line["count"] > first]
        assert [line for line in failed if line["at"] < ended] == []  # the second is alone for a moment
        assert book["asked"] == list(range(first, book["asked"][-1] + 1))

"""Three registry servers on three real nodes: the primary's death, a minority, a change of servers, a lost copy."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path

import pytest
from boot_order import out_of_order
from covey.components.connection import connect
from covey.components.groups.client import Group
from covey.errors import CoveyError
from covey.testing import Cluster, Node
from registry_load import status, whole

CURED = ("registry.read_only", "registry.no_quorum", "registry.not_primary", "core.timeout", "bus.no_service")
"""Errors that a retry with the same request id cures."""

PAUSE = 0.005
"""Seconds from one acknowledged write to the next: the tests beside need the processors, too."""


@pytest.fixture(scope="module")
def held() -> Iterator[list[Cluster]]:
    """The cluster that goes from test to test, if the last one left it whole."""
    clusters: list[Cluster] = []
    yield clusters
    for found in clusters:
        with closing(found):
            check_logs(found)


@pytest.fixture
def three(held: list[Cluster]) -> Iterator[Cluster]:
    """Three nodes with three servers, all online and voting, which must be so again when the test ends."""
    if not held:
        held.append(Cluster(3, isolation="inline", servers=3))
        held[0].up()
    yield held[0]
    held[0].show()
    try:
        whole(held[0], 10.0)
    except AssertionError:
        held.pop().close()


def check_logs(cluster: Cluster) -> None:
    for one in cluster:
        said = one.log.read_text()
        assert "Traceback (most recent call last)" not in said, said


class Writer(threading.Thread):
    """Puts numbers through one node one after the other, each until it is acknowledged, always under the same id."""

    def __init__(self, node: Node, prefix: str) -> None:
        super().__init__(daemon=True)
        self.node, self.prefix = node, prefix
        self.acknowledged = 0
        self.longest = 0.0  # seconds that one number took
        self.errors: list[str] = []
        self._ended = threading.Event()
        self._wrote = threading.Condition()

    def run(self) -> None:
        asyncio.run(self._write())

    async def _write(self) -> None:
        async with self.node.connect() as bus:
            while not self._ended.is_set():
                number, began = self.acknowledged + 1, time.monotonic()
                while True:
                    try:
                        given = {"key": f"{self.prefix}/{number}", "value": number, "if_revision": 0}
                        done = await bus.call("registry", "put", request_id=f"{self.prefix}-{number}", **given)
                        assert done["succeeded"], f"{number} was applied twice"
                        break
                    except CoveyError as problem:
                        self.errors.append(problem.code)
                        if problem.code not in CURED or self._ended.is_set():
                            return
                self.longest = max(self.longest, time.monotonic() - began)
                with self._wrote:
                    self.acknowledged = number
                    self._wrote.notify_all()
                await asyncio.sleep(PAUSE)

    def more(self, count: int = 20) -> None:
        """Wait until so many more were acknowledged."""
        with self._wrote:
            wanted = self.acknowledged + count
            assert self._wrote.wait_for(lambda: self.acknowledged >= wanted, 30), self.errors[-5:]

    def end(self) -> None:
        self._ended.set()
        self.join(30)
        assert set(self.errors) <= set(CURED), self.errors


@contextmanager
def writing(node: Node, prefix: str) -> Iterator[Writer]:
    """Write meanwhile; afterwards all that was acknowledged must be there, on every node."""
    writer = Writer(node, prefix)
    writer.start()
    try:
        writer.more()
        yield writer
        writer.more()
    finally:
        writer.end()
    listed = node.call("registry", "ls", prefix=f"{prefix}/", limit=100_000)["items"]
    there = {item["value"] for item in listed}
    assert set(range(1, writer.acknowledged + 1)) <= there


class Votes(threading.Thread):
    """Two members on two nodes put numbers to the vote, one after the other; both approve of everything."""

    def __init__(self, nodes: list[Node]) -> None:
        super().__init__(daemon=True)
        self.nodes = nodes
        self.outcomes: list[str] = []  # of each number from 0: "decided", or the code of an error
        self.seen: list[list[int]] = [[], []]  # what was decided as each member was told
        self._ended = threading.Event()
        self._news = threading.Condition()

    def run(self) -> None:
        asyncio.run(self._vote())

    async def _vote(self) -> None:
        async with AsyncExitStack() as stack:
            groups = []
            for node in self.nodes:
                bus = await stack.enter_async_context(connect(str(node.state)))
                groups.append(await stack.enter_async_context(bus.group("test.votes")))
                groups[-1].vote(lambda proposal: "approve")
            hearing = [asyncio.create_task(self._hear(*each)) for each in zip(groups, self.seen, strict=True)]
            while not self._ended.is_set() or self.outcomes[-1] != "decided":
                try:
                    await groups[0].propose(len(self.outcomes), deadline=2.0)
                    outcome = "decided"
                except CoveyError as problem:
                    outcome = problem.code
                with self._news:
                    self.outcomes.append(outcome)
                    self._news.notify_all()
            last = len(self.outcomes) - 1
            while not all(seen and seen[-1] == last for seen in self.seen):
                await asyncio.wait(hearing, timeout=0.01)
            for task in hearing:
                task.cancel()

    @staticmethod
    async def _hear(group: Group, seen: list[int]) -> None:
        async for event in group:
            if event.kind == "decided":
                seen.append(event.body)

    def more(self, count: int = 5) -> None:
        """Wait until so many more were decided."""
        with self._news:
            wanted = self.outcomes.count("decided") + count
            assert self._news.wait_for(lambda: self.outcomes.count("decided") >= wanted, 30), self.outcomes[-5:]

    def end(self) -> None:
        """All members were told the same, and the proposer what they were told."""
        self._ended.set()
        self.join(30)
        assert self.seen[0] == self.seen[1] == sorted(set(self.seen[0])), self.seen
        for number, outcome in enumerate(self.outcomes):
            if outcome == "decided":
                assert number in self.seen[0], f"{number} was said to be decided, and nobody was told"
            elif outcome != "core.timeout":  # which says that it is not known
                assert outcome in ("groups.coordinator_changed", "groups.frozen"), outcome
                assert number not in self.seen[0], f"{outcome}, and the members were told that {number} is decided"


def test_the_primary_is_killed_and_everything_goes_on(three: Cluster) -> None:
    """Its groups machine coordinates: it dies anywhere between a call for votes and the word of what came of it."""
    before = status(three[1])
    dead, other = three[before["primary"]], three[before["primary"] % 3 + 1]
    votes = Votes([other, three[(before["primary"] + 1) % 3 + 1]])
    votes.start()
    with writing(other, "/app/killed") as writer:
        votes.more()
        dead.kill()
        writer.more()
        assert writer.longest < 3.0, "the others take writes again within three seconds"
        seen = other.wait(
            "the view to let it go", lambda found: dead.number not in found["view"]["members"], seconds=30
        )
        assert seen["quorate"] and seen["view"]["id"][0] > before["epoch"], "the new primary's node made the view"
        groups = other.wait(
            "its membership to end",
            lambda found: len(found["members"]) == 2,
            ask=("groups", "show"),
            name="sys.registry",
        )
        assert {member["node"] for member in groups["members"]} == {1, 2, 3} - {dead.number}
        votes.more()
        votes.end()
        dead.start()
        dead.wait_online()
    after = status(dead)
    assert after["primary"] != dead.number and after["epoch"] > before["epoch"]
    whole(three)
    timeline = dead.call("dcm", "node_boot_log")
    assert out_of_order(timeline) == []
    steps = {line["step"]: line for line in timeline}
    assert f"at primary {after['primary']}" in steps[5]["event"] and steps[16]["how"] == "done"


def test_a_primary_that_hangs_is_replaced_and_then_gives_up(three: Cluster) -> None:
    before = status(three[1])
    frozen, other = three[before["primary"]], three[before["primary"] % 3 + 1]
    processes = frozen.processes()
    with writing(other, "/app/frozen") as writer:
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        try:
            writer.more()
            assert writer.longest < 4.0, "nobody waits for the link to the old primary to end"
        finally:
            for pid in processes:
                os.kill(pid, signal.SIGCONT)
        assert frozen.call("registry", "get", key="/app/frozen/1", timeout=20.0)["value"] == 1
    whole(three)
    assert status(frozen)["epoch"] > before["epoch"]


def test_a_primary_that_ends_in_order_hands_over(three: Cluster) -> None:
    primary = three[status(three[1])["primary"]]
    other = three[primary.number % 3 + 1]
    with writing(other, "/app/ended") as writer:
        assert primary.stop() == 0
        writer.more()
        assert writer.longest < 1.0, "nobody waits for an election"
        primary.start()
        primary.wait_online()
    whole(three)


def test_a_minority_reads_what_may_be_old_and_writes_nothing(three: Cluster) -> None:
    one, *others = three
    one.call("registry", "put", key="/app/minority", value="before")
    copy = {"key": "/app/minority", "consistency": "stale"}
    one.wait("its own copy to have it", lambda found: found["value"] == "before", ask=("registry", "get"), **copy)
    for each in others:
        each.kill()
    one.wait("it to know", lambda found: found["primary"] is None, ask=("registry", "status"))
    until = time.monotonic() + 10
    while (found := refused(one)) != "registry.no_quorum":
        assert time.monotonic() < until, found
    began = time.monotonic()
    assert refused(one) == "registry.no_quorum"
    assert time.monotonic() - began < 1.0, "at once, once it is known"
    answer = one.covey("registry", "put", "/app/minority", "after", "-o", "json")
    assert answer.code == 6 and "a majority of the servers does not answer" in answer.error["message"]
    assert one.covey("registry", "get", "/app/minority").code == 6
    stale = one.covey("registry", "get", "/app/minority", "--consistency", "stale", "-o", "json").data
    assert (stale["value"], stale["consistency"]) == ("before", "stale")
    for each in others:
        each.start()
    for each in others:
        each.wait_online()
    whole(three)
    assert one.call("registry", "get", key="/app/minority")["value"] == "before"


def refused(node: Node) -> str:
    try:
        node.call("registry", "get", key="/app/minority", timeout=5.0)
    except CoveyError as problem:
        return problem.code
    return ""


def test_servers_come_and_go_under_writes(three: Cluster) -> None:
    one, two, _ = three
    with writing(two, "/app/changed") as writer:
        for gone in ("3", "1"):
            assert one.covey("registry", "undefine-server", gone).code == 0
            writer.more(5)
        alone = two.wait("it to be alone", lambda found: len(found["servers"]) == 1, ask=("registry", "status"))
        assert alone["primary"] == 2 and alone["tolerates"] == 0
        last = two.covey("registry", "undefine-server", "2", "-o", "json")
        assert last.code == 5 and "the last registry server" in last.error["message"]
        made = one.covey("registry", "define-server", "n1", "3", "--wait", "-o", "json")
        assert {server["state"] for server in made.data["servers"]} == {"primary", "follower"}
    kept = one.covey("node", "undefine", "3", "--yes", "-o", "json")
    assert kept.code == 5 and "covey registry undefine-server 3" in kept.error["hint"]
    local = [each.call("dcm", "local") for each in three]
    assert all(sorted(found["servers"]) == [1, 2, 3] and not found["learners"] for found in local)
    whole(three)


def test_a_server_is_put_offline_and_online(three: Cluster) -> None:
    one = three[1]
    assert one.covey("registry", "offline", "3", "--wait").code == 0
    second = one.covey("registry", "offline", "2", "-o", "json")
    assert second.code == 5 and "would answer" in second.error["message"]
    assert three[3].call("registry", "get", key="/cluster/definition")["value"]["name"] == "lab", "it is a client now"
    assert three[3].call("dcm", "local")["stopped"] == [3]
    assert one.covey("registry", "online", "3", "--wait").code == 0
    whole(three)


def copy_of(node: Node) -> Path:
    return Path(node.call("dcm", "local")["folder"]) / "configuration" / "registry"


def test_a_servers_folder_is_gone_and_filled_again(three: Cluster) -> None:
    primary = status(three[1])["primary"]
    lost, other = three[primary % 3 + 1], three[primary]
    folder = copy_of(lost)
    lost.kill()
    shutil.rmtree(folder)
    other.call("registry", "put", key="/app/lost", value="there")
    lost.start()
    lost.wait_online()
    whole(three)
    assert f"{folder} is damaged at byte 0: the folder of this server's copy is missing" in lost.log.read_text()
    assert lost.call("registry", "get", key="/app/lost", consistency="stale")["value"] == "there"
    assert list(folder.glob("snapshot-*"))

"""Groups on real daemons: the verbs of `covey group`, and the examples as people run them."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from covey import errors
from covey.components.connection import connect
from covey.testing import Cluster, Node

pytestmark = pytest.mark.cluster

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Running:
    """A program on the bus of one node; its lines are read as they come."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdout is not None
        self.out = process.stdout

    async def line(self) -> str:
        return (await self.out.readline()).decode().strip()

    async def until(self, text: str) -> None:
        """Read until a line holds this."""
        while text not in (found := await self.line()):
            assert found, f"ended before it said {text!r}"


@asynccontextmanager
async def running(node: Node, *words: str) -> AsyncIterator[Running]:
    environment = {**os.environ, "COVEY_STATE": str(node.state)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", *words, stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def story(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def test_leader_election(shared: Cluster) -> None:
    """The leader's process is killed: the next one leads, and a bystander on a third node is told so; Ctrl-C ends."""

    async def work() -> None:
        program = str(EXAMPLES / "leader_election.py")
        async with connect(str(shared[3].state)) as bus:
            events = bus.group_events("test.leader")
            await events.begin()
            async with running(shared[1], program, "test.leader") as first:
                assert await first.line() == "I lead"
                async with running(shared[2], program, "test.leader") as second:
                    assert (await second.line()).endswith("@1 leads")
                    first.process.kill()
                    assert await second.line() == "I lead"
                    kinds = [(await anext(events)).kind for _ in range(3)]
                    assert kinds == ["joined", "joined", "failed"] and [m.node for m in events.members] == [2]
                    async with running(shared[3], program, "test.leader") as third:
                        assert (await third.line()).endswith("@2 leads")
                        expelled = f"{events.members[0].member}@2"
                        await bus.call(
                            "groups", "expel", group="test.leader", member=expelled, reason="enough", outside=True
                        )
                        assert await second.line() == "expelled: enough" and await second.process.wait() == 0
                        assert await third.line() == "I lead"
                        third.process.send_signal(signal.SIGINT)
                        assert await third.process.wait() == 0
                        kinds = [(await anext(events)).kind for _ in range(3)]
                        assert kinds == ["joined", "expelled", "left"]

    story(work())


def test_two_phase_switch(shared: Cluster) -> None:
    async def work() -> None:
        program = str(EXAMPLES / "two_phase_switch.py")
        async with running(shared[1], program) as one, running(shared[2], program) as two:
            for member in (one, two):
                assert await member.line() == "ready"
            async with running(shared[3], program, "42") as switch:
                assert await switch.line() == "all switched to 42"
            for member in (one, two):
                assert [await member.line() for _ in range(2)] == ["prepared for 42", "switched to 42"]
            async with running(shared[2], program, "off") as switch:
                assert "off is no number" in await switch.line()
            for member in (one, two):
                assert await member.line() == "stayed: off was rejected"

    story(work())


def test_the_bench_measures(shared: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """How quick anything is, is not judged here."""
    monkeypatch.syspath_prepend(str(EXAMPLES.parent / "bench"))
    bench = runpy.run_path(str(EXAMPLES.parent / "bench" / "groups.py"))
    crowd = asyncio.run(bench["measure"](shared, SimpleNamespace(count=0, members=0, groups=2)))
    assert crowd["2 groups"]["one_each_heard_s"] > 0 and crowd["2 groups"]["failed_s"] > 0
    found = asyncio.run(bench["measure"](shared, SimpleNamespace(count=30, kills=1, deaths=0, members=0, groups=0)))
    assert found["joins"]["one_group_per_s"] > 0 and found["vote_two_phases_ms"]["n"] == 3
    assert found["strong"]["seen_by_all_per_s"] > 0 and found["fast"]["seen_by_all_per_s"] > 0
    assert {where: each["n"] for where, each in found["failure_leave_ms"].items()} == {"same_node": 1, "other_nodes": 2}
    assert "failure_leave_ms" in bench["text"](found)


def test_the_verbs_of_covey_group(shared: Cluster) -> None:
    async def work() -> None:
        words = ("-m", "covey.cli", "-o", "json", "group")
        async with (
            running(shared[1], *words, "watch", "test.verbs") as watch,
            running(shared[2], *words, "join", "test.verbs", "--value", "v1", "--vote", "reject") as member,
        ):
            joined = json.loads(await member.line())
            assert (joined["kind"], joined["who"][0]["node"]) == ("joined", 2)
            name = joined["who"][0]["member"]

            async def covey(*said: str) -> Any:
                return await asyncio.to_thread(shared[3].covey, "-o", "json", "group", *said)

            async def told(*said: str) -> Any:
                answer = await covey(*said)
                assert answer.code == 0, answer
                return answer.data

            assert await told("state", "test.verbs") == {"name": "test.verbs", "state": "v1"}
            await told("state", "test.verbs", "v2")
            await told("broadcast", "test.verbs", "hello")
            rejected = await covey("propose", "test.verbs", "stop", "--deadline", "2s")
            assert rejected.code == 5 and rejected.error["code"] == "groups.rejected"
            [vote] = await told("transcript", "test.verbs")
            assert (vote["outcome"], vote["votes"][0]["vote"], vote["votes"][0]["how"]) == (
                "rejected",
                "reject",
                "voted",
            )
            logs = [node.state / "dcm" / "logs" / "audit.log" for node in shared]
            for _ in range(100):
                if any('"group_vote"' in log.read_text() and "test.verbs" in log.read_text() for log in logs):
                    break
                await asyncio.sleep(0.05)
            else:
                raise AssertionError("the vote is in no audit log")
            shown = await told("show", "test.verbs")
            assert shown["members"][0]["member"] == name and shown["phase"] == "idle"
            assert (await covey("expel", "test.verbs", "nobody", "--yes")).code == 4
            await told("expel", "test.verbs", name, "--reason", "enough", "--yes")
            kinds = [json.loads(await member.line()) for _ in range(5)]
            assert [(e["kind"], e["body"]) for e in kinds] == [
                ("state", "v1"),
                ("state", "v2"),
                ("message", "hello"),
                ("rejected", "stop"),
                ("expelled", "enough"),
            ]
            refused = json.loads(await member.line())
            assert refused["error"]["code"] == errors.Refused.code
            assert await member.process.wait() == 5
            await watch.until('"expelled"')

    story(work())

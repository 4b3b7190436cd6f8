"""`covey.testing` at work: the fixtures as authors use them, clusters are shared, strays are found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from covey.testing import Cluster, Node
from fake_packages import put_controller

pytestmark = pytest.mark.cluster


def test_tests_that_share_a_cluster_are_run_by_one_worker(shared: Cluster, request: pytest.FixtureRequest) -> None:
    """Else every worker boots it: xdist knows groups by a suffix of names, which not every pytest lets it add."""
    assert request.node.nodeid.endswith("@shared") or not hasattr(request.config, "workerinput")


def test_the_node_of_an_author(node: Node) -> None:
    async def greet() -> list[str]:
        async with node.connect() as bus:
            answer = await bus.call("registry", "put", key="/app/greeting", value="hello")
            return [bus.node.name, str(answer["succeeded"])]

    assert asyncio.run(greet()) == ["n1", "True"]
    assert node.covey("registry", "get", "/app/greeting").out == "hello\n"
    assert node.covey("-o", "json", "registry", "get", "/app/nothing").error["code"] == "registry.not_found"
    with pytest.raises(AssertionError, match=r"registry\.not_found"):
        _ = node.covey("-o", "json", "registry", "get", "/app/nothing").data
    with pytest.raises(AssertionError, match="waited for what never is"):
        node.wait("what never is", lambda _: False, 0.2)


def test_a_process_that_is_left_behind_is_found_and_ended(nodes: Callable[..., Cluster], tmp_path: Path) -> None:
    put_controller(
        tmp_path,
        "stray",
        'open(os.environ["STRAY"], "x").write(str(subprocess.Popen(["sleep", "600"]).pid)); return []',
        before="import subprocess",
    )
    note = tmp_path / "pid"
    node = nodes(1, "process", environment={"PYTHONPATH": str(tmp_path), "STRAY": str(note)})[1]
    node.start()
    node.wait_up()
    node.call("dcm", "cluster_define", name="lab")
    node.wait("the controller to start its process", lambda _: note.exists() and note.read_text() != "")
    stray = int(note.read_text())
    assert node.processes()[stray] == "sleep"
    with pytest.raises(AssertionError, match=f"left processes behind.*{stray}"):
        node.kill()
    assert stray not in node.processes()
    node.kill()

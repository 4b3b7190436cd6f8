"""The number of registry servers goes up and down on five real nodes, while clients on two of them write and read."""

from __future__ import annotations

from contextlib import closing

import pytest
from covey.testing import Cluster, Node
from registry_load import Load

pytestmark = pytest.mark.cluster


def define(by: Node, *servers: int) -> None:
    done = by.covey("registry", "define-server", *map(str, servers), "--wait", "-o", "json")
    assert done.code == 0, done


def undefine(by: Node, *servers: int) -> None:
    for number in servers:
        done = by.covey("registry", "undefine-server", str(number), "-o", "json")
        assert done.code == 0, done


def voters(cluster: Cluster, *numbers: int, ask: int = 1) -> None:
    status = cluster.wait_voting(*numbers, ask=ask)
    assert sorted(server["number"] for server in status["servers"]) == sorted(numbers)


def test_from_one_server_to_five_and_back_and_again_with_one_dead() -> None:
    with closing(Cluster(5, isolation="inline")) as five:
        five.up()
        one, two, three, *_ = five
        load = Load([node.state for node in (one, three)], "/app/sizes/")
        load.begin()
        define(two, 2, 3)
        voters(five, 1, 2, 3)
        load.more()
        define(one, 4, 5)
        voters(five, 1, 2, 3, 4, 5)
        load.more()
        undefine(three, 1, 2)  # the first primary goes, too
        voters(five, 3, 4, 5)
        load.more()
        undefine(one, 3, 4)
        voters(five, 5)
        load.more()
        define(one, 1, 2)
        define(one, 3, 4)
        voters(five, 1, 2, 3, 4, 5)
        dead = five[one.call("registry", "status")["primary"]]
        others = [node for node in five if node is not dead]
        dead.kill()
        load.more()
        undefine(others[0], dead.number, others[3].number)
        voters(five, *(node.number for node in others[:3]), ask=others[0].number)
        load.more()
        undefine(others[3], others[0].number, others[1].number)
        voters(five, others[2].number, ask=others[0].number)
        dead.start()
        five.wait_online()
        load.more()
        judged = load.judge()
        assert judged["transactions"] > 100 and judged["watched"] > 50, judged
        five.show()

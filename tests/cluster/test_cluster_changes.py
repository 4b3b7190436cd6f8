"""What is defined can be changed and taken away: nodes, a cluster, and a whole cluster put offline and online."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from covey.errors import AlreadyDefined, NodeOnline, NotFound, UsageError
from covey.testing import Cluster

pytestmark = pytest.mark.cluster

Boot = Callable[..., Cluster]


def test_the_life_of_a_cluster_from_one_of_its_nodes(nodes: Boot) -> None:
    lab = nodes(3, servers=2)
    lab.up()
    first, second, third = lab

    # changed: every node follows, whoever was asked
    assert second.call("dcm", "node_modify", number=3, name="web")["name"] == "web"
    for node in lab:
        node.wait("the new name", lambda said: said["name"] == "web", ask=("dcm", "node_show"), number=3)
    assert third.call("dcm", "local")["node_name"] == "web"
    for verb, arguments, error in (
        ("node_modify", {"number": 3, "name": "n1"}, AlreadyDefined),
        ("node_modify", {"number": 3, "addresses": [first.adapters[0]]}, AlreadyDefined),
        ("node_modify", {"number": 3, "addresses": ["127.0.0.1"]}, UsageError),
        ("node_modify", {"number": 3}, UsageError),
        ("node_modify", {"number": 9, "name": "x"}, NotFound),
        ("cluster_modify", {"name": "7"}, UsageError),
    ):
        with pytest.raises(error):
            first.call("dcm", verb, **arguments)
    assert third.call("dcm", "cluster_modify", name="night")["name"] == "night"
    for node in lab:
        node.wait("the new name", lambda said: said["name"] == "night")
        node.wait("it in the list", lambda said: said[0]["name"] == "night", ask=("dcm", "cluster_ls"))

    # offline and online again, with a report for each node
    said = first.covey("-o", "json", "cluster", "offline", "--wait")
    assert (said.code, [one["state"] for one in said.data]) == (0, ["offline"] * 3), said
    assert said.data[-1]["number"] == 1
    for node in lab:
        assert node.call("dcm", "cluster_status")["node_state"] == "offline"
    third.kill()
    said = first.covey("-o", "json", "cluster", "online")
    assert said.code == 1
    assert [one["number"] for one in said.data if one["error"]] == [3]
    first.wait_online()
    second.wait_online()

    # undefined: what is away is told so, and cannot ask anybody any more
    with pytest.raises(NodeOnline):
        first.call("dcm", "cluster_undefine", which="night")
    with pytest.raises(NotFound):
        second.call("dcm", "cluster_undefine", which="lab", force=True)
    gone = second.covey("-o", "json", "cluster", "undefine", "night", "--yes", "--force")
    assert {one["name"]: one["erased"] for one in gone.data["nodes"]} == {"n1": True, "n2": True, "web": False}
    for node in (first, second):
        node.wait("the node to be undefined", lambda status: status["node_state"] == "undefined")
        assert node.call("dcm", "cluster_ls") == []
        assert sorted(path.name for path in node.state.iterdir()) == ["dcm", "run"]
    assert '"cluster_undefine"' in (second.state / "dcm/logs/audit.log").read_text()
    third.start()
    third.wait("its daemon", lambda status: status["node_state"] == "offline")  # the operator's word of before
    assert third.call("dcm", "node_forget", which="night")["proved"] is False
    assert third.call("dcm", "cluster_ls") == []

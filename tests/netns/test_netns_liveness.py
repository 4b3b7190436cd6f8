"""Two nodes on two networks: one network dies and nothing follows but what `paths` shows; then the other dies, too."""

from __future__ import annotations

from contextlib import closing

import pytest
from netns_cluster import NetCluster, possible

pytestmark = pytest.mark.skipif(not possible(), reason="needs root, ip(8), namespaces, veth and bridge")


def test_one_of_two_networks_is_no_reason_to_leave_and_both_are() -> None:
    with closing(NetCluster(2, 1, networks=2)) as two:
        try:
            two.up()
            ask = ("liveness", "paths")
            two[1].wait("all paths to be seen", lambda rows: [r["state"] for r in rows] == ["ok"] * 4, 15, ask=ask)
            held = two[1].call("liveness", "status")["view"]["id"]
            two.cut_network(1)
            wanted = [("10.78.1.0/24", "down")] * 2 + [("10.78.2.0/24", "ok")] * 2
            two[1].wait(
                "`paths` to show it", lambda rows: [(r["network"], r["state"]) for r in rows] == wanted, 15, ask=ask
            )
            # the link between the brokers goes by the first network and is given up after five seconds of silence
            two[1].wait("the other way", lambda told: not told["suspects"], 1, ask=("liveness", "status"))
            two[2].wait("a link by the other network", lambda told: told["quorate"], 15, ask=("liveness", "status"))
            for node in two:
                told = node.call("liveness", "status")
                assert (told["view"]["id"], told["quorate"], told["suspects"]) == (held, True, [])
            two.cut_network(2)
            two[1].wait(
                "the node to be out", lambda told: len(told["view"]["members"]) == 1, 15, ask=("liveness", "status")
            )
            two[2].wait("the other to freeze", lambda told: told["frozen"], 15, ask=("liveness", "status"))
        finally:
            two.show()

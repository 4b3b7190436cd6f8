"""What the tables say of an address, and the lists that follow from them."""

from __future__ import annotations

from covey.bus.messages import Way
from covey.components.dcm.definitions import NetworkDefinition, NetworkTable, NodeDefinition, SubnetDefinition
from covey.components.dcm.networks import Networks, Place
from covey.components.dcm.routes import routes_of


def node(number: int, *addresses: str) -> NodeDefinition:
    return NodeDefinition(number, f"n{number}", f"machine-{number}", "", addresses, 7400)


def subnet(name: str, prefix: str, network: str) -> SubnetDefinition:
    return SubnetDefinition(name, name, prefix, network)


def table(networks: dict[str, dict[str, int]], *subnets: SubnetDefinition) -> NetworkTable:
    return NetworkTable(
        {name: NetworkDefinition(name, name, priorities) for name, priorities in networks.items()},
        {each.id: each for each in subnets},
    )


TWO = {1: node(1, "10.1.0.1/24", "10.2.0.1/24"), 2: node(2, "10.1.0.2/24", "10.2.0.2/24")}
A = subnet("a", "10.1.0.0/24", "A")
B = subnet("b", "10.2.0.0/24", "B")


def test_an_address_without_a_subnetwork_has_its_own_in_the_network_default() -> None:
    found = Networks(table({}, A), {**TWO, 3: node(3, "fd00:5::3/64")})
    assert [(each.name, each.network) for each in found.subnets()] == [
        ("10.2.0.0/24", "default"),
        ("a", "A"),
        ("fd00:5::/64", "default"),
    ]
    assert [each.name for each in found.networks()] == ["default"], "A is in no table of networks here"
    assert found.network_of("10.1.0.77/16") == "A", "the prefix of the subnetwork counts"


def test_the_longest_prefix_holds() -> None:
    found = Networks(table({}, subnet("wide", "10.0.0.0/8", "W"), subnet("six", "fd00::/16", "S"), A), TWO)
    addresses = ("10.1.0.9/8", "10.1.1.9/8", "fd00:1::9/64", "192.168.0.1/24")
    assert [found.network_of(each) for each in addresses] == ["A", "W", "S", "default"]


def test_hops_are_one_in_the_same_subnetwork_else_as_said_by_either_else_two() -> None:
    far = SubnetDefinition("far", "far", "10.9.0.0/24", "A", {A.prefix: 4})
    found = Networks(table({}, A, B, far), TWO)
    assert [found.hops(1, each) for each in (A, far, subnet("other", "10.8.0.0/24", "A"))] == [1, 4, 2]
    assert found.hops(7, A) == 2, "of a node nobody knows anything"


def test_the_order_and_what_is_never_tried() -> None:
    found = Networks(table({"A": {"registry": 1}, "B": {"registry": 3}, "C": {"registry": 0}}, A, B), TWO)
    chosen, rejected = found.choose("registry", 1, found.places())
    assert [(each.address, each.priority, each.hops, each.local) for each in chosen] == [
        ("10.2.0.1", 3, 0, True),
        ("10.2.0.2", 3, 1, False),
        ("10.1.0.1", 1, 0, True),
        ("10.1.0.2", 1, 1, False),
    ]
    assert rejected == []
    never = Networks(table({"A": {"registry": 0}}, A, B), TWO)
    chosen, rejected = never.choose("registry", 1, [Place(2, each) for each in TWO[2].addresses])
    assert [each.address for each in chosen] == ["10.2.0.2"]
    assert [(each.address, "A" in each.reason) for each in rejected] == [("10.1.0.2", True)]


def test_moving_a_subnetwork_changes_the_path_of_all_its_addresses() -> None:
    nodes = {n: node(n, f"10.1.0.{n}/24", f"10.2.0.{n}/24") for n in range(1, 10)}
    networks = {"A": {"registry": 3}, "B": {"registry": 1}, "C": {"registry": 2}}
    for moved, first in ((B, "10.1.0."), (subnet("a", "10.1.0.0/24", "D"), "10.2.0.")):
        subnets = (A, moved) if moved is B else (moved, B)
        peers = routes_of(Networks(table(networks, *subnets), nodes), 1).peers
        assert all(peer.lists["registry"][0].startswith(first) for peer in peers.values())


def test_only_services_with_another_order_have_a_list_of_their_own() -> None:
    networks = {"A": {"registry": 3, "groups": 2, "liveness": 0}, "B": {"registry": 1, "groups": 2}}
    routes = routes_of(Networks(table(networks, A, B), TWO), 1)
    first, second = "10.1.0.2:7400", "10.2.0.2:7400"
    peer = routes.peers[2]
    assert peer.addresses == (second, first), "node 1 begins with number 1 of two"
    assert peer.lists == {"registry": (first, second), "liveness": (second,)}
    assert routes.ways == {"10.1.0.0/24": Way("A", "10.1.0.1", ("liveness",)), "10.2.0.0/24": Way("B", "10.2.0.1")}


def test_another_subnetwork_of_a_network_is_reached_from_this_nodes_address_in_it() -> None:
    behind = subnet("behind", "10.3.0.0/24", "B")
    nodes = {**TWO, 3: node(3, "10.3.0.3/24"), 4: node(4, "10.4.0.4/24")}
    ways = routes_of(Networks(table({}, A, B, behind), nodes), 1).ways
    assert ways["10.3.0.0/24"] == Way("B", "10.2.0.1")
    assert ways["10.4.0.0/24"] == Way("default", ""), "in `default` the system decides"

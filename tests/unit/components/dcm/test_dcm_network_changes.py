"""What may be changed of networks, subnetworks and addresses, and what is refused, with what words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from covey.components.dcm import network_changes as changes
from covey.components.dcm.definitions import NetworkTable, NodeDefinition
from covey.components.dcm.network_entries import change, table_from
from covey.components.dcm.networks import Networks
from covey.errors import AlreadyDefined, CoveyError, NotFound, Refused, UsageError

NODES = {
    number: NodeDefinition(number, f"n{number}", "", "", (f"10.1.0.{number}/16", f"10.2.0.{number}/16"), 7400)
    for number in (1, 2)
}


def after(*makes: Callable[[Networks], NetworkTable]) -> Networks:
    now = Networks(NetworkTable(), NODES)
    for make in makes:
        now = Networks(make(now), NODES)
        changes.check(now)
    return now


def fast(now: Networks) -> NetworkTable:
    return changes.define_network(now, "fast", "f" * 32, {"registry": 3})


def front(now: Networks) -> NetworkTable:
    return changes.define_subnet(now, "front", "s" * 32, "10.1.0.0/16", "fast")


def put(subnet: str, network: str) -> Callable[[Networks], NetworkTable]:
    return lambda now: changes.modify_subnet(now, subnet, subnet[:8], {"network": network})


def never(network: str, *services: str) -> Callable[[Networks], NetworkTable]:
    return lambda now: changes.set_priorities(now, network, dict.fromkeys(services, 0))


def test_a_network_gets_subnetworks_and_is_renamed_with_them() -> None:
    now = after(fast, front, lambda now: changes.rename_network(now, "fast", "quick"))
    assert [(each.name, each.network) for each in now.subnets()] == [("10.2.0.0/16", "default"), ("front", "quick")]
    assert now.priority("registry", "quick") == 3
    assert now.network_of("10.1.0.9/24") == "quick"


def test_an_implicit_subnetwork_is_defined_by_putting_it_elsewhere() -> None:
    now = after(fast, put("10.2.0.0/16", "fast"))
    assert now.table.subnets["10.2.0.0"].name == "10.2.0.0/16"
    assert now.network_of("10.2.0.1/16") == "fast"
    back = after(fast, put("10.2.0.0/16", "fast"), put("10.2.0.0/16", "default"))
    assert changes.undefine_subnet(back, "10.2.0.0/16").subnets == {}


def test_priorities_are_set_and_left_again() -> None:
    now = after(fast, lambda now: changes.set_priorities(now, "fast", {"bulk": 0, "registry": None}))
    assert now.table.networks["fast"].priorities == {"bulk": 0}
    assert changes.read_priorities({"registry": 1, "bulk": None}, ("registry", "bulk")) == {"registry": 1, "bulk": None}


def test_hops_are_said_of_two_subnetworks_and_follow_a_changed_prefix() -> None:
    now = after(fast, front, lambda now: changes.modify_subnet(now, "front", "", {"hops": {"10.2.0.0/16": 4}}))
    assert now.table.subnets["s" * 32].hops == {"10.2.0.0/16": 4}
    now = after(
        fast,
        front,
        lambda now: changes.modify_subnet(now, "10.2.0.0/16", "b" * 8, {"hops": {"front": 4}}),
        lambda now: changes.modify_subnet(now, "front", "", {"prefix": "10.1.0.0/17"}),
    )
    assert now.table.subnets["b" * 8].hops == {"10.1.0.0/17": 4}


def wide(prefix: str) -> Callable[[Networks], NetworkTable]:
    return lambda now: changes.define_subnet(now, "wide", "w", prefix, "default")


REFUSED: list[tuple[str, type[CoveyError], str, list[Callable[[Networks], Any]]]] = [
    ("overlap", AlreadyDefined, "overlaps that of the subnetwork front", [fast, front, wide("10.1.128.0/17")]),
    ("overlap around", AlreadyDefined, "overlaps", [fast, front, wide("10.0.0.0/8")]),
    ("host bits", UsageError, "no prefix", [wide("10.1.0.1/16")]),
    ("no bits", UsageError, "no prefix length", [wide("10.1.0.1")]),
    ("no prefix", UsageError, "no prefix", [wide("front")]),
    ("the same name", AlreadyDefined, "network fast already", [fast, fast]),
    ("a number for a name", UsageError, "cannot be", [lambda now: changes.define_network(now, "12", "", {})]),
    ("unknown network", NotFound, "no network 'fats'", [fast, put("10.1.0.0/16", "fats")]),
    ("unknown subnetwork", NotFound, "no subnetwork 'frnt'", [fast, front, put("frnt", "fast")]),
    ("address outside", Refused, "outside its subnetwork", [fast, front, lambda now: changes.modify_subnet(
        now, "front", "", {"prefix": "10.1.7.0/24"})]),
    ("network in use", Refused, "in use by the subnetwork front", [
        fast, front, lambda now: changes.undefine_network(now, "fast")]),
    ("subnetwork in use", Refused, "2 addresses are in it", [
        fast, front, lambda now: changes.undefine_subnet(now, "front")]),
    ("nobody's subnetwork", Refused, "nobody defined", [lambda now: changes.undefine_subnet(now, "10.1.0.0/16")]),
    ("default stays", Refused, "cannot go", [lambda now: changes.undefine_network(now, "default")]),
    ("core service nowhere", Refused, "registry could not reach n1", [never("default", "registry")]),
    ("core service nowhere for a node", Refused, "liveness could not reach", [
        fast, front, put("10.2.0.0/16", "fast"), never("fast", "liveness")]),
    ("hops to itself", UsageError, "itself", [fast, front, lambda now: changes.modify_subnet(
        now, "front", "", {"hops": {"front": 1}})]),
]  # fmt: skip


@pytest.mark.parametrize(("error", "words", "makes"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_refused(error: type[CoveyError], words: str, makes: list[Callable[[Networks], Any]]) -> None:
    with pytest.raises(error, match=words) as told:
        after(*makes)
    assert told.value.hint or "multicast" in words, "and what to do instead"


def test_addresses_are_unique_in_their_subnetwork_and_one_stays() -> None:
    now = after(fast, front)
    assert changes.add_address(now, NODES[1], "10.1.0.7/16", "front")[-1] == "10.1.0.7/16"
    with pytest.raises(AlreadyDefined, match=r"10.1.0.2 is that of n2 \(2\)"):
        changes.add_address(now, NODES[1], "10.1.0.2/24")
    with pytest.raises(Refused, match="outside the subnetwork front"):
        changes.add_address(now, NODES[1], "10.2.0.7/16", "front")
    assert changes.take_address(NODES[1], "10.1.0.1") == ("10.2.0.1/16",)
    with pytest.raises(Refused, match="last address"):
        changes.take_address(NodeDefinition(3, "n3", "", "", ("10.3.0.3/16",), 7400), "10.3.0.3")


def test_a_priority_is_a_number_for_a_service_there_is() -> None:
    known = ("registry", "bulk")
    with pytest.raises(UsageError, match="no service 'registy'") as told:
        changes.read_priorities({"registy": 3}, known)
    assert "registry" in (told.value.hint or "")
    with pytest.raises(UsageError, match="no priority"):
        changes.read_priorities({"bulk": -1}, known)


def test_a_change_is_written_as_what_differs_and_read_back_the_same() -> None:
    old, new = after(fast).table, after(fast, front, put("10.2.0.0/16", "fast")).table
    wanted = change(old, new, 17, {"changes": 4})
    assert wanted["compare"] == [{"key": "/cluster/networks", "mod_revision": 17}]
    written = {each["key"]: each["value"] for each in wanted["then"]}
    assert written.pop("/cluster/networks") == {"changes": 5}
    assert sorted(written) == ["/subnets/10.2.0.0", "/subnets/" + "s" * 32]
    networks = [{"value": each["value"]} for each in change(NetworkTable(), old, 0, None)["then"][:-1]]
    read = table_from(networks, [{"value": value} for value in written.values()], 9)
    assert (read.networks, read.subnets, read.revision) == (new.networks, new.subnets, 9)
    gone = change(new, old, 18, {})["then"]
    assert [each["op"] for each in gone] == ["delete", "delete", "put"]

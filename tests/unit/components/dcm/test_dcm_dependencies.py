"""The graphs of SPEC 2.2 from declarations, and the circles that are refused."""

from __future__ import annotations

import pytest
from covey.components.dcm import covey_component
from covey.components.dcm.dependencies import build, dot, levels, text
from covey.errors import CycleError, NotFound
from covey.plugins.hookspecs import Component


def component(name: str, offers: dict[str, tuple[str, ...]], data: tuple[str, ...] = ()) -> Component:
    return Component(name=name, summary="", main="", offers=offers, data=data)


CORE = [
    component(
        "resources", {"resources": ("dcm.local", "registry.reads", "registry.writes", "groups")}, ("dcm", "registry")
    ),
    component("groups", {"groups": ("liveness", "registry.reads", "registry.log")}, ("dcm", "registry")),
    component("liveness", {"liveness": ("dcm.local", "registry.reads", "registry.log")}, ("dcm", "registry")),
    component(
        "registry", {"registry.log": (), "registry.reads": (), "registry.writes": ("registry.log", "groups")}, ()
    ),
    covey_component(),
]


def test_the_order_of_start_is_that_of_the_specification() -> None:
    order = build(CORE).order
    assert [name for name in order if name != "dcm"] == ["registry", "liveness", "groups", "resources"]
    assert build(list(reversed(CORE))).order == order


def test_every_function_comes_after_what_it_needs() -> None:
    graphs = build(CORE)
    order = levels(graphs.functions, "functions")
    for function, needs in graphs.functions.items():
        assert all(order.index(needed) < order.index(function) for needed in needs)
    assert graphs.functions_of("registry") == ["registry.log", "registry.reads", "registry.writes"]


def test_a_third_party_component_gets_its_place() -> None:
    more = [*CORE, component("backup", {"backup": ("registry.writes",)}, ("registry",)), component("idle", {})]
    order = build(more).order
    assert order.index("backup") > order.index("groups")
    assert order[-1] == "idle"


def test_a_circle_of_functions_is_printed() -> None:
    bad = [component("a", {"a.x": ("b.y",)}), component("b", {"b.y": ("c.z",)}), component("c", {"c.z": ("a.x",)})]
    with pytest.raises(CycleError, match=r"a\.x → b\.y → c\.z → a\.x"):
        build([*bad, *CORE])


def test_a_function_that_needs_itself_is_a_circle() -> None:
    with pytest.raises(CycleError, match="x → x"):
        build([component("a", {"x": ("x",)})])


def test_only_the_circle_is_printed_not_what_hangs_on_it() -> None:
    bad = [component("a", {"a": ("b",)}), component("b", {"b": ("c",)}), component("c", {"c": ("b",)})]
    with pytest.raises(CycleError) as caught:
        build(bad)
    assert "a →" not in caught.value.message
    assert "b → c → b" in caught.value.message


def test_a_circle_of_data_is_refused() -> None:
    with pytest.raises(CycleError, match="needs of data form a circle: a → b → a"):
        build([component("a", {}, ("b",)), component("b", {}, ("a",))])


def test_what_nobody_offers_is_named() -> None:
    with pytest.raises(NotFound, match="'grups': no component offers that"):
        build([*CORE, component("x", {"x": ("grups",)})])
    with pytest.raises(NotFound, match="the data of 'store'"):
        build([component("x", {}, ("store",))])


def test_a_function_offered_twice_is_refused() -> None:
    with pytest.raises(CycleError, match="'groups' is offered by groups and by mine"):
        build([*CORE, component("mine", {"groups": ()})])


def test_both_graphs_as_text() -> None:
    shown = text(build(CORE))
    assert "registry.writes  (registry) ← registry.log, groups" in shown
    assert "liveness   ← dcm, registry" in shown
    assert shown.splitlines()[-1].startswith("order of start: dcm, registry, liveness")


def test_both_graphs_for_graphviz() -> None:
    shown = dot(build(CORE))
    assert '"registry.writes" -> "groups";' in shown
    assert '"data:liveness" -> "data:registry";' in shown
    assert shown.count("{") == shown.count("}")

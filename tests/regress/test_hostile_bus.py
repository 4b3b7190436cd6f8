"""What a stranger on the bus could do once: speak for a component, and make the bus choke on a value."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from covey import errors
from covey.bus import codec
from covey.bus.exchange import LONGEST_BUDGET
from covey.bus.messages import SUBSCRIBE, Header, Hello, Kind, Role, Subscribe
from covey.bus.routing import Router
from covey.bus.service import Service


def party(router: Router, role: Role, component: bool = False) -> str:
    router.hello(role.name, Hello("", component), role, 0, 1)
    return role.name


@pytest.mark.parametrize(
    ("role", "topic", "passes"),
    [
        (Role.LOOK, "app.news", False),
        (Role.OPERATOR, "app.news", True),
        (Role.ADMIN, "registry.leading", False),  # one of these froze the membership list of the whole cluster
        (Role.LOOK, "bus.peer", False),
        (Role.ADMIN, "controller.gpu", False),
        (Role.COMPONENT, "registry.leading", True),
        (Role.ADMIN, "registryfoo.x", True),
    ],
)
def test_only_who_may_change_things_publishes_and_only_components_speak_for_components(
    role: Role, topic: str, passes: bool
) -> None:
    router = Router(reserved=("registry", "bus"))
    speaker, reader = party(router, role), "reader"
    router.hello(reader, Hello(), Role.LOOK, 0, 3)
    router.from_party(reader, Header(Kind.CONTROL, topic=SUBSCRIBE), msgspec.msgpack.encode(Subscribe(topic)), 0.0)
    (out,) = router.from_party(speaker, Header(Kind.EVENT, topic=topic, sequence=1), b"\xc0", 0.0)
    if passes:
        assert (out.connection.key, out.kind) == (reader, Kind.EVENT)
    else:
        assert (out.connection.key, codec.decode_header(out.frame).ids) == (speaker, ())
        assert isinstance(codec.decode_error(out.body), errors.Denied)
        assert router.counters["publish_refused"] == 1


@pytest.mark.parametrize("budget", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_request_with_a_mad_budget_is_forgotten_some_day(budget: float) -> None:
    router = Router()
    asker = party(router, Role.LOOK)
    router.hello("s", Hello("store", True, ("store",)), Role.COMPONENT, 0, 2)
    router.from_party(asker, Header(Kind.REQUEST, (1,), "", "store", "store.get", budget=budget), b"", 0.0)
    assert router.parties[asker].waiting == 1
    router.sweep(LONGEST_BUDGET + 2)
    assert router.parties[asker].waiting == 0


NESTED: list[Any] = []
for _ in range(5000):
    NESTED = [NESTED]


@pytest.mark.parametrize("value", ["/app/\udcff", 2**64, -(2**63) - 1, NESTED])
def test_a_value_that_no_message_carries_is_a_mistake_of_the_caller(value: Any) -> None:
    with pytest.raises(errors.UsageError):
        codec.encode_item({"value": value})


def test_a_header_no_broker_would_take_is_refused_before_it_is_sent() -> None:
    with pytest.raises(errors.TooLarge):
        codec.encode_header(Header(Kind.REQUEST, (1,), "", "x" * 20_000, "x.ping"))
    with pytest.raises(errors.UsageError):
        codec.encode_header(Header(Kind.REQUEST, (1,), "", "\udcff", "x.ping"))


def test_an_error_about_a_file_with_a_broken_name_reaches_the_caller() -> None:
    told = codec.decode_error(codec.encode_error(errors.NotFound("no file \udcff", path="\udcff")))
    assert (type(told), told.message) == (errors.NotFound, "no file \\udcff")


def test_a_verb_that_takes_any_object_can_be_described() -> None:
    def keep(*, value: object) -> None:
        """Keep it."""

    described = {each["verb"]: each for each in Service("store", {"keep": keep}).describe()}
    assert "value" in described["keep"]["arguments"]["properties"]


def test_who_may_only_look_changes_no_group() -> None:
    from covey.components.groups.service import GroupsService

    changing = ("join", "leave", "broadcast", "set_state", "propose", "expel")
    assert {getattr(GroupsService, name).__covey_role__ for name in changing} == {Role.OPERATOR}

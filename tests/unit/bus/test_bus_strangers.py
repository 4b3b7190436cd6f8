"""What the router makes of proved keys and of strangers: the broker says who somebody is, never a header."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from bus_router import head, lab_router, reply, request
from covey import errors
from covey.bus.messages import NodeInfo, Role

KEY = "a" * 64
STRANGER = {"role": Role.LOOK, "uid": -1, "key": KEY}


def stranger(number: int = 1, *ids: int, **fields: Any) -> Any:
    return msgspec.structs.replace(request("store", *ids, **fields), source=f"join-{number}@0", **STRANGER)


def test_a_key_is_what_the_connection_proved_and_nothing_else() -> None:
    router = lab_router()
    router.caller_came("p", NodeInfo(2, "n2", "id2", "c1", "lab", "b2"))
    (here,) = router.from_party("a", request(key="forged"), b"", 0.0)
    assert head(here).key == ""
    asked = msgspec.structs.replace(request(key="forged"), source="x@2")
    (there,) = router.from_caller("p", asked, b"", 0.0, KEY)
    assert (head(there).key, head(there).source) == (KEY, "x@2")
    (plain,) = router.from_caller("p", msgspec.structs.replace(asked, ids=(8,)), b"", 0.0)
    assert head(plain).key == ""
    router.check_invariants()


def test_a_stranger_gets_its_answer_on_its_own_connection() -> None:
    router = lab_router()
    (asked,) = router.from_stranger("j", stranger(1), b"q", 0.0)
    assert asked.connection == ("local", "s")
    assert (head(asked).source, head(asked).role, head(asked).key) == ("join-1@0", Role.LOOK, KEY)
    router.check_invariants()
    (answer,) = router.from_party("s", reply("join-1@0", 7), b"a", 0.0)
    assert answer.connection == ("join", "j")
    assert head(answer).destination == "join-1@0"
    router.check_invariants()


def test_what_a_stranger_asked_ends_with_its_connection() -> None:
    router = lab_router()
    router.from_stranger("j", stranger(1), b"q", 0.0)
    assert router.stranger_gone("j") == []
    assert router.stranger_gone("j") == []
    assert router.strangers == {}
    assert router.from_party("s", reply("join-1@0", 7), b"a", 0.0) == []
    assert router.counters["orphan_reply"] == 1
    router.check_invariants()


def test_a_stranger_is_told_when_the_asked_one_dies() -> None:
    router = lab_router()
    router.from_stranger("j", stranger(1), b"q", 0.0)
    told = [out for out in router.party_gone("s", "it died") if out.connection.port == "join"]
    assert [head(out).ids for out in told] == [(7,)]
    router.check_invariants()


def test_a_stranger_reaches_no_other_node() -> None:
    router = lab_router()
    for destination in ("store@2", "store@127.1.0.2:7400"):
        outs = router.from_stranger("j", msgspec.structs.replace(stranger(1), destination=destination), b"", 0.0)
        assert all(out.connection.port != "link" for out in outs), destination
        for out in outs:
            if out.connection.port == "local":
                router.from_party("s", reply("join-1@0", 7), b"a", 0.0)
    router.check_invariants()


@pytest.mark.parametrize("fields", [{"count": -1}, {"count": 3}, {"ids": (1, 1), "count": 2}])
def test_a_header_of_a_stranger_that_makes_no_sense_changes_nothing(fields: dict[str, Any]) -> None:
    router = lab_router()
    assert router.from_stranger("j", msgspec.structs.replace(stranger(1), **fields), b"", 0.0) == []
    assert router.counters["malformed"] == 1
    assert router.strangers == {}
    router.check_invariants()


def test_an_answer_that_cannot_be_sent_to_a_stranger_is_counted() -> None:
    router = lab_router()
    router.from_stranger("j", stranger(1), b"q", 0.0)
    (answer,) = router.from_party("s", reply("join-1@0", 7), b"a", 0.0)
    outs = router.undeliverable(answer, errors.Overloaded("full"))
    assert [head(out).destination for out in outs] == ["join-1@0"]
    router.stranger_gone("j")
    assert router.undeliverable(answer, errors.Overloaded("full")) == []
    assert router.counters["undeliverable"] == 1

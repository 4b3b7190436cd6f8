"""What strangers may say, and that nobody gets the answer to another's question."""

from __future__ import annotations

import msgspec
import pytest
from covey.bus.join_gate import LONGEST_TEXT, MOST_ASKERS, MOST_ITEMS, Gate
from covey.bus.messages import HELLO, Header, Kind, Role
from covey.bus.trust import RateLimit
from hypothesis import given
from hypothesis import strategies as st

KEY = "a" * 64
ASK = Header(
    Kind.REQUEST,
    (7,),
    "dcm@3",
    f"dcm@127.1.0.1:7401#{KEY}",
    "dcm.define_message",
    cluster="c1",
    role=Role.COMPONENT,
    uid=0,
    budget=3.0,
    causes=("story",),
    key="forged",
)


def gate() -> Gate:
    return Gate({"dcm.define_message", "dcm.verdict"}, RateLimit(rate=5.0, burst=10.0))


def let(here: Gate, header: Header, connection: bytes = b"\0one", now: float = 0.0) -> Header | str:
    return here.let(now, connection, KEY, "10.0.0.1", header)


def test_a_question_goes_on_under_a_name_of_nobody_with_the_proved_key() -> None:
    found = let(gate(), ASK)
    assert isinstance(found, Header)
    assert (found.source, found.role, found.uid, found.key) == ("join-1@0", Role.LOOK, -1, KEY)
    assert (found.ids, found.topic, found.causes, found.budget) == (ASK.ids, ASK.topic, ASK.causes, ASK.budget)


@pytest.mark.parametrize(
    "change",
    [
        {"topic": "dcm.node_undefine"},
        {"topic": "dcm.define_message.more"},
        {"topic": ""},
        {"topic": "registry.get", "destination": "registry"},
        {"destination": "registry"},
        {"destination": "dc"},
        {"destination": "dcm@2"},
        {"destination": "dcm@nowhere"},
        {"destination": ""},
        {"kind": Kind.REPLY},
        {"kind": Kind.ERROR},
        {"kind": Kind.EVENT},
        {"kind": Kind.CONTROL, "topic": HELLO},
        {"kind": Kind.CONTROL},
        {"count": MOST_ITEMS + 1, "ids": tuple(range(MOST_ITEMS + 1))},
        {"count": 0, "ids": ()},
        {"count": -1},
        {"count": 2},
        {"ids": ()},
        {"ids": (7, 8)},
        {"compressed": True},
        {"source": "x" * (LONGEST_TEXT + 1)},
        {"cluster": "x" * (LONGEST_TEXT + 1)},
        {"causes": ("x" * (LONGEST_TEXT + 1),)},
        {"request_ids": ("x" * (LONGEST_TEXT + 1),)},
    ],
    ids=str,
)
def test_nothing_else_goes_on(change: dict[str, object]) -> None:
    assert let(gate(), msgspec.structs.replace(ASK, **change)) == "join_topic"


def test_without_topics_nothing_goes_on() -> None:
    assert let(Gate(()), ASK) == "join_topic"


@pytest.mark.parametrize("where", ["", "@0", "@127.1.0.1:7401", f"@[::1]:7401#{KEY}"])
def test_the_address_that_was_dialled_does_not_matter(where: str) -> None:
    assert isinstance(let(gate(), msgspec.structs.replace(ASK, destination=f"dcm{where}")), Header)


def test_an_answer_goes_back_to_who_asked_under_his_own_name() -> None:
    here = gate()
    asked = [
        (b"\0one", "dcm@3"),
        (b"\0two", "dcm@3"),
        (b"\0one", "dcm@4"),
    ]
    names = []
    for connection, source in asked:
        found = let(here, msgspec.structs.replace(ASK, source=source), connection)
        assert isinstance(found, Header)
        names.append(found.source)
    assert len(set(names)) == 3
    again = let(here, ASK, b"\0one")
    assert isinstance(again, Header)
    assert again.source == names[0]
    for name, (connection, source) in zip(names, asked, strict=True):
        answer = Header(Kind.REPLY, (7,), "dcm@1", name, ASK.topic)
        assert here.back(answer) == (connection, msgspec.structs.replace(answer, destination=source))


NOBODY = ["join-2@0", "join-0@0", "join-@0", "join-x@0", "dcm@3", "", "join-٣@0", f"join-{'9' * 5000}@0"]


@pytest.mark.parametrize("name", NOBODY)
def test_an_answer_to_nobody_leaves_nothing(name: str) -> None:
    here = gate()
    let(here, ASK)
    assert here.back(Header(Kind.REPLY, (7,), "dcm@1", name, ASK.topic)) is None


def test_the_rate_counts_handshakes_and_messages_of_one_address() -> None:
    here = gate()
    assert [here.knock(0.0, "10.0.0.1") for _ in range(5)] == [""] * 5
    assert [isinstance(let(here, ASK), Header) for _ in range(6)] == [True] * 5 + [False]
    assert let(here, ASK) == "join_rate"
    assert here.knock(0.0, "10.0.0.1") == "join_rate"
    assert here.knock(0.0, "10.0.0.2") == ""
    assert isinstance(let(here, ASK, now=0.3), Header)


def test_each_request_of_a_batch_counts() -> None:
    here = gate()
    both = msgspec.structs.replace(ASK, ids=(1, 2, 3, 4), count=4)
    assert [isinstance(let(here, both), Header) for _ in range(3)] == [True, True, False]
    assert isinstance(let(here, ASK), Header)


def test_what_is_refused_for_its_topic_costs_as_much() -> None:
    here = gate()
    wrong = msgspec.structs.replace(ASK, topic="registry.put")
    assert [let(here, wrong) for _ in range(10)] == ["join_topic"] * 10
    assert let(here, ASK) == "join_rate"


def test_askers_are_forgotten_the_quiet_ones_first_and_their_numbers_never_used_again() -> None:
    here = Gate({"dcm.define_message"}, RateLimit(1e9, 1e9))
    busy = let(here, ASK, b"\0busy")
    assert isinstance(busy, Header)
    seen = {busy.source}
    for number in range(2 * MOST_ASKERS):
        found = let(here, ASK, b"\0%d" % number)
        assert isinstance(found, Header)
        assert found.source not in seen
        seen.add(found.source)
        assert let(here, ASK, b"\0busy") == busy
        assert here.askers <= MOST_ASKERS
    assert here.back(Header(Kind.REPLY, (7,), "dcm@1", "join-2@0", ASK.topic)) is None
    assert here.back(Header(Kind.REPLY, (7,), "dcm@1", busy.source, ASK.topic)) is not None


headers = st.builds(
    Header,
    st.sampled_from(Kind),
    st.lists(st.integers(0, 2**63), max_size=3).map(tuple),
    st.text(max_size=300),
    st.text(max_size=30) | st.sampled_from(["dcm", "dcm@0", "dcm@1", "dcm@1.2.3.4:5"]),
    st.text(max_size=30) | st.sampled_from(["dcm.define_message", "dcm.local"]),
    st.integers(-1, 200),
    st.text(max_size=300),
    st.integers(-5, 99),
    key=st.text(max_size=70),
)


@given(headers)
def test_whatever_is_said_goes_on_as_nobody_or_not_at_all(header: Header) -> None:
    found = let(gate(), header)
    if isinstance(found, Header):
        assert (found.source, found.role, found.uid, found.key) == ("join-1@0", Role.LOOK, -1, KEY)
        assert found.topic in ("dcm.define_message", "dcm.verdict")
        assert found.count == len(found.ids) <= MOST_ITEMS
    else:
        assert found == "join_topic"

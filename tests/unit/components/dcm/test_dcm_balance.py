"""The plan of a balance, for any pool and any places; and the file that says what is wanted, and when."""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from covey.components.dcm.balance import Hours, Place, Plan, Pool, fits, plan
from covey.components.dcm.balance_file import load_balance, wanted_now
from covey.errors import InvalidFile
from hypothesis import given
from hypothesis import strategies as st

CLUSTERS = ["a", "b", "c"]


def place(number: int, cluster: str | None, **changes: object) -> Place:
    return msgspec.structs.replace(Place(number, f"n{number}", cluster, "online"), **changes)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Pool, dict[int, Place], int]:
    count = draw(st.integers(1, 12))
    places = {
        number: place(
            number,
            draw(st.sampled_from([*CLUSTERS, "other", None])),
            state=draw(st.sampled_from(["online", "online", "online", "offline"])),
            server=draw(st.integers(0, 5)) == 0,
            problem=draw(st.sampled_from(["", "", "", "silent"])),
        )
        for number in range(1, count + 1)
    }
    left = count
    wanted = {}
    for cluster in draw(st.lists(st.sampled_from(CLUSTERS), min_size=1, unique=True)):
        wanted[cluster] = draw(st.integers(0, left))
        left -= wanted[cluster]
    return Pool("p", tuple(places), wanted, "always"), places, draw(st.integers(0, count))


def after(made: Plan, places: dict[int, Place]) -> dict[int, Place]:
    """Carry a plan out."""
    found = dict(places)
    for move in made.moves:
        assert found[move.number].cluster == move.source
        found[move.number] = msgspec.structs.replace(found[move.number], cluster=move.to)
    return found


def counted(places: dict[int, Place]) -> Counter[str | None]:
    return Counter(one.cluster for one in places.values() if one.state == "online" and not one.problem)


@given(situations())
def test_a_plan_meets_what_can_be_met_with_as_few_moves_and_then_nothing_is_left(
    situation: tuple[Pool, dict[int, Place], int],
) -> None:
    pool, places, own = situation
    made = plan([pool], places, own)
    before, then = counted(places), counted(after(made, places))
    missing = sum(max(0, wanted - before[name]) for name, wanted in pool.wanted.items())
    spare = 0
    for name, wanted in pool.wanted.items():
        free = [one for one in places.values() if one.cluster == name and one.state == "online" and not one.problem]
        spare += min(max(0, before[name] - wanted), sum(not one.server for one in free))
    assert len(made.moves) == min(missing, spare)
    for name, wanted in pool.wanted.items():
        assert then[name] >= min(before[name], wanted), "it took from where none was over"
    assert len({move.number for move in made.moves}) == len(made.moves)
    for move in made.moves:
        left = places[move.number]
        assert (left.state, left.problem, left.server) == ("online", "", False)
        assert {move.source, move.to} <= set(pool.wanted)
    assert [move.number == own for move in made.moves] == sorted(move.number == own for move in made.moves)
    assert plan([pool], after(made, places), own).moves == ()
    assert len(made.notes) >= (sum(max(0, wanted - then[name]) for name, wanted in pool.wanted.items()) > 0)


def test_what_a_person_reads() -> None:
    pool = Pool("batch", (1, 2, 3, 4, 5), {"day": 1, "night": 3}, "mon-fri 18:00-08:00")
    places = {
        1: place(1, "day", server=True),
        2: place(2, "day"),
        3: place(3, "day"),
        4: place(4, "day", state="offline"),
        5: place(5, None, problem="it does not answer"),
    }
    made = plan([pool], places, own=3)
    assert [(move.number, move.to) for move in made.moves] == [(2, "night"), (3, "night")]
    assert made.moves[0].reason == "night has 0 of 3, day has 3 and needs 1 (mon-fri 18:00-08:00)"
    assert made.notes == (
        "batch: n4 is not counted: it is offline in day",
        "batch: n5 is not counted: it does not answer",
        "batch: night has 2 of 3, and no node is to spare",
    )
    lone = plan([Pool("p", (1,), {"day": 0, "night": 1}, "always")], {1: place(1, "day", server=True)})
    assert lone.moves == ()
    assert "n1 would be over, and is a registry server" in lone.notes[0]


@pytest.mark.parametrize(
    ("when", "days", "hours", "yes"),
    [
        ("2026-11-23 08:00", (0,), Hours(480, 1080), True),  # a Monday
        ("2026-11-23 18:00", (0,), Hours(480, 1080), False),
        ("2026-11-24 08:00", (0,), Hours(480, 1080), False),
        ("2026-11-24 02:00", (0,), Hours(1080, 480), True),  # Monday's night
        ("2026-11-23 02:00", (0,), Hours(1080, 480), False),  # Sunday's
        ("2026-11-23 19:00", (0,), Hours(1080, 480), True),
        ("2026-11-29 23:59", (6,), None, True),
        ("2026-11-29 23:59", (5,), None, False),
    ],
)
def test_when_it_is(when: str, days: tuple[int, ...], hours: Hours | None, yes: bool) -> None:
    assert fits(datetime.datetime.fromisoformat(when), days, hours) == yes


FILE = """\
covey: 1
pools:
  batch:
    nodes: [n3, 4]
    clusters: {day: 1, night: 1}
    schedule:
      - {days: fri-mon, hours: 18:00-08:00, clusters: {night: 2}}
"""


def test_a_file_and_its_schedule(tmp_path: Path) -> None:
    path = tmp_path / "pools.yaml"
    path.write_text(FILE)
    pool = load_balance(path).pools["batch"]
    assert pool.nodes == ("n3", 4)
    friday, monday = map(datetime.datetime.fromisoformat, ("2026-11-27 20:00", "2026-11-23 12:00"))
    assert wanted_now(pool, friday) == ({"day": 0, "night": 2}, "fri-mon 18:00-08:00")
    assert wanted_now(pool, monday) == ({"day": 1, "night": 1}, "at all other times")


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("[n3, 4]", "[n3, n3]", "4:17: error[balance.duplicate_node]"),
        ("{day: 1, night: 1}", "{day: 2, night: 1}", "5:15: error[balance.too_many]"),
        ("{night: 2}", "{nigth: 2}", "7:56: error[balance.unknown_cluster]"),
        ("{night: 2}", "{night: 3}", "7:55: error[balance.too_many]"),
        ("fri-mon", "fri-moon", "7:16: error[balance.bad_value]"),
        ("18:00-08:00", "18-8", "7:32: error[balance.bad_value]"),
        ("18:00-08:00", "08:00-08:00", "7:32: error[balance.bad_value]"),
        ("day: 1", "day: -1", "5:21: error[balance.out_of_range]"),
        ("nodes:", "node:", "4:5: error[balance.unknown_key]"),
        ("covey: 1", "covey: 2", "1:8: error[balance.wrong_type]"),
    ],
)
def test_every_mistake_has_its_place(tmp_path: Path, old: str, new: str, finding: str) -> None:
    path = tmp_path / "pools.yaml"
    path.write_text(FILE.replace(old, new, 1))
    with pytest.raises(InvalidFile) as raised:
        load_balance(path)
    assert f"pools.yaml:{finding}" in raised.value.message

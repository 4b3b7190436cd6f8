"""The chain of views: what fits, what does not, and what it remembers."""

from __future__ import annotations

import msgspec
import pytest
from covey.components.liveness.messages import NO_VIEW, Member, View
from covey.components.liveness.views import Chain, difference, digest, make

A, B, C = Member(1, "a"), Member(2, "b"), Member(3, "c")


def chain_of(*lists: tuple[Member, ...], kept: int = 256) -> Chain:
    chain = Chain(kept)
    for members in lists:
        chain.append(make(chain.last, 1, members))
    return chain


def test_a_view_follows_the_one_before_by_id_and_hash() -> None:
    chain = chain_of((A,), (B, A))
    first, second = chain.views
    assert (first.id, first.previous, first.previous_hash) == ((1, 1), NO_VIEW, "")
    assert (second.id, second.previous, second.previous_hash) == ((1, 2), first.id, first.hash)
    assert second.members == (A, B)
    assert make(second, 7, (A,)).id == (7, 3)
    chain.check()


@pytest.mark.parametrize(
    "change",
    [{"id": (1, 4)}, {"previous": (1, 1)}, {"previous_hash": "00"}, {"members": (A, C)}, {"at": 5.0}, {"hash": "00"}],
)
def test_a_view_with_anything_changed_does_not_fit(change: dict[str, object]) -> None:
    chain = chain_of((A,), (A, B))
    view = make(chain.last, 1, (A, B, C))
    assert chain.fits(view)
    assert not chain.fits(msgspec.structs.replace(view, **change))


def test_a_sound_view_of_another_chain_does_not_fit() -> None:
    chain, other = chain_of((A,), (A, B)), chain_of((A,), (A, C))
    view = make(other.last, 1, (A,))
    assert view.hash == digest(view)
    assert not chain.fits(view)
    with pytest.raises(AssertionError, match="does not follow"):
        chain.append(view)


def test_since_gives_what_follows_and_everything_for_an_unknown_id() -> None:
    chain = chain_of((A,), (A, B), (A, B, C))
    assert [v.id for v in chain.since((1, 2))] == [(1, 3)]
    assert chain.since((1, 3)) == ()
    assert [v.id for v in chain.since(NO_VIEW)] == [(1, 1), (1, 2), (1, 3)]
    assert [v.id for v in chain.since((9, 2))] == [(1, 1), (1, 2), (1, 3)]


def test_views_are_bounded_and_who_departed_is_remembered_longer() -> None:
    lists = [(A, Member(2, f"b{n}")) for n in range(10)]
    chain = chain_of(*lists, kept=3)
    assert [v.id[1] for v in chain.views] == [8, 9, 10]
    assert set(chain.departed) == {f"b{n}" for n in range(9)}
    long = chain_of(*[(Member(2, f"b{n}"),) for n in range(100)], kept=3)
    assert len(long.departed) == 24


def test_a_departed_boot_id_that_comes_back_is_found() -> None:
    chain = chain_of((A, B), (A,))
    chain.check()
    chain.append(make(chain.last, 1, (A, B)))
    with pytest.raises(AssertionError, match="INV-20"):
        chain.check()


def test_a_boot_id_or_a_number_twice_is_found() -> None:
    with pytest.raises(AssertionError, match="twice"):
        chain_of((A, Member(2, "a"))).check()
    with pytest.raises(AssertionError, match="not unique"):
        chain_of((A, Member(1, "b"))).check()


def test_a_chain_that_starts_anew_after_a_gap_knows_who_is_gone() -> None:
    chain = chain_of((A, B))
    far = make(View((1, 8), (1, 7), "77", (A, C), 0.0, "88"), 1, (A, C))
    assert not chain.fits(far)
    chain.restart(far)
    chain.append(far)
    chain.check()
    assert set(chain.departed) == {"b"}


def test_a_node_that_came_back_under_a_new_boot_id_both_left_and_joined() -> None:
    new = Member(2, "b2")
    assert difference((A, B), (A, new)) == ((new,), (B,))
    assert difference((A, B), (A, Member(2, "b", "online"))) == ((), ())


def test_what_changed_is_unknown_only_for_a_view_whose_past_is_gone() -> None:
    chain = chain_of((A,), (A, B), (B,), kept=2)
    assert chain.change(chain.views[0]) == ((), ())
    assert chain.change(chain.views[1]) == ((), (A,))
    whole = chain_of((A,))
    assert whole.change(whole.views[0]) == ((A,), ())

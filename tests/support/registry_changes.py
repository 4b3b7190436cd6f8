"""Classic schedules of changed servers, damaged copies, hand-overs and retries: more of `registry_schedules.py`."""

from __future__ import annotations

from typing import Any

from covey.bus.linearizability import check_watch
from covey.components.registry import entries, messages, peers
from covey.components.registry.states import State
from covey.errors import Busy, CoveyError, NoQuorum, NotPrimary, RequestExpired
from msgspec.structs import replace
from registry_script import SETTINGS, Script

# --- changes of the servers -------------------------------------------------------------------------------------------


def _joins(s: Script, number: int, *without: int) -> None:
    """Define a server and let it be filled; the entry that makes it a voter is in no log but that of 1."""
    asked = s.define(1, number)
    s.talk(*(n for n in s.voters if n not in without))
    assert number in s.result(asked)["learners"]
    for _ in range(8):
        if number in s.raft(1).log.servers.voters:
            return
        s.beat(1)
        while s.under_way(1, number) or s.under_way(number, 1):
            for one in s.under_way(1, number) or s.under_way(number, 1):
                s.deliver(one.source, one.to)
                if number in s.raft(1).log.servers.voters:
                    return
    raise AssertionError(f"{number} is never made a voter: {s.kinds(1)}")


def one_comes_and_one_goes() -> None:
    """One primary adds a server, the next removes another: sets without a common majority (the bug of 2015)."""
    s = Script(4, 1)
    s.open(1)
    _joins(s, 5)
    s.drop(1)
    s.elect(2, 3, 4)
    early = s.define(2, 1, "undefine")
    for _ in range(4):
        s.talk(2, 3)
        s.beat(2)
    if not isinstance(s.answers.get(early), CoveyError):
        s.elected(1, 4, 5)
    assert isinstance(s.refused(early), NoQuorum), "INV-16: the servers change before the reign is settled"
    s.talk(2, 3, 4)
    late = s.define(2, 1, "undefine")
    s.talk(2, 3, 4)
    assert s.result(late)["servers"] == [2, 3, 4]
    assert not s.elected(1, 4, 5), "INV-4"
    s.peace()
    assert 1 not in s.truth.servers.voters


def two_at_once() -> None:
    """While a change of the servers is under way another is refused."""
    s = Script(3, 2)
    s.open(1)
    first = s.define(1, 4)
    second = s.define(1, 5)
    third = s.define(1, 3, "undefine")
    assert isinstance(s.refused(second), Busy)
    assert isinstance(s.refused(third), Busy)
    s.talk(1, 2, 3)
    assert s.result(first)["learners"] == [4]
    s.peace()


def in_force_when_appended() -> None:
    """A removed server counts no more as soon as the entry stands in the log, committed or not."""
    s = Script(3)
    s.open(1)
    s.define(1, 3, "undefine")
    s.talk(1, 3)
    assert s.committed(1) < s.last(1), "INV-16: committed with the vote of the server that goes"
    s.talk(1, 2)
    assert s.truth.servers.voters == (1, 2)
    s.peace()


def learner_does_not_count() -> None:
    """A learner's copy is no reason to call an entry committed."""
    s = Script(3, 1, settings=replace(SETTINGS, learner_lag=-1))
    s.open(1)
    s.define(1, 4)
    s.talk(1, 2, 3)
    s.beat(1)
    s.talk(1, 4)
    s.drop()
    s.put(1, "held by a learner")
    s.talk(1, 4)
    s.beat(1)
    s.talk(1, 4)
    assert s.durable(4) == s.last(1)
    assert s.committed(1) < s.last(1), "INV-9: a learner was counted"
    s.crash(1)
    s.elect(2, 3)
    s.talk(2, 3)


def learner_is_asked_for_its_vote() -> None:
    """A server that was made a voter has not heard of it: it votes when asked, for that vote may be needed."""
    s = Script(3, 1)
    s.open(1)
    _joins(s, 4)
    s.drop(1, 4)
    s.talk(1, 2, 3)
    s.beat(1)
    s.drop(1, 4)
    s.talk(1, 2, 3)
    assert 4 in s.truth.servers.voters
    assert 4 in s.raft(4).log.servers.learners
    s.crash(1)
    s.crash(3)
    _canvass(s, 2, 4)
    s.start(3)
    s.elect(2, 3, 4)  # three of four: 1 is down, so it takes the vote of 4
    s.peace()


def _canvass(s: Script, candidate: int, voter: int) -> None:
    s.doubt(voter)
    s.time_out(candidate)
    s.deliver(candidate, voter, peers.PreVoteAsked)
    promises = s.under_way(voter, candidate, peers.PreVoteGiven)
    assert promises and promises[0].message.granted, "a server that does not know it is a voter keeps its vote"


def removed_primary() -> None:
    """The primary is removed: it hands over first, the next one removes it, and it disturbs nobody afterwards."""
    s = Script(3)
    s.open(1)
    asked = s.define(1, 1, "undefine")
    assert isinstance(s.refused(asked), NotPrimary)
    s.talk()
    leader = next(number for number in (2, 3) if s.leads(number))
    s.beat(leader)
    s.talk()
    again = s.define(leader, 1, "undefine")
    s.talk(2, 3)
    assert s.result(again)["servers"] == [2, 3]
    s.run(10.0)
    assert s.leads(leader), "a removed server deposed the primary"
    assert not s.leads(1)
    s.peace()


# --- damaged copies ---------------------------------------------------------------------------------------------------


def damaged_copy_keeps_silent() -> None:
    """A copy that lost its vote votes no more, neither for another nor again, until it was filled."""
    s = Script(3)
    s.stand(1, 2)
    s.stand(3, 2)
    s.deliver(1, 2, peers.VoteAsked)
    s.damage(2)
    s.deliver(3, 2, peers.VoteAsked)
    for _ in range(3):
        s.time_out(2)
    s.hand(type(s.flight[0])(1, 2, peers.TakeOver(0, 2)))
    assert not s.under_way(2, 3), "INV-8: a damaged copy votes"
    s.talk()
    assert s.leads(1)
    assert not s.leads(3)
    s.peace()
    assert s.guard.seen["copies refilled"] == 1


def lost_acknowledgement() -> None:
    """A copy acknowledged an entry and was damaged; the acknowledgement comes late, and does not count."""
    s = Script(3)
    s.open(1)
    s.put(1, "held once")
    index = s.last(1)
    s.deliver(1, 2, peers.Append)
    late = s.take(2, 1, peers.Appended)
    s.damage(2)
    s.drop(1)
    s.beat(1)
    s.deliver(1, 2, peers.Append)
    s.deliver(2, 1, peers.Refill)
    s.hand(late)
    assert s.committed(1) < index, "INV-8: what a lost copy had acknowledged was counted"
    assert any("Noted" in kind for kind in s.kinds(1))
    for _ in range(5):
        s.talk(1, 2)
        s.beat(1)
    assert s.machines[2].state is State.DAMAGED, "INV-8: filled before the note was committed without it"
    s.talk()
    s.peace()
    assert s.value() == "held once"
    assert s.guard.seen["damage noted"]


def damaged_copy_hears_an_earlier_reign() -> None:
    """A damaged copy is known to the primary only by its refusal of a late message: it is filled all the same."""
    s = Script(3)
    s.open(1)
    s.put(1, "kept")
    late = s.take(1, 2, peers.Append)
    s.talk()
    s.elect(1, 3)
    s.talk(1, 3)
    s.drop()
    s.damage(2)
    s.beat(1)
    s.deliver(1, 2, peers.Append)
    s.drop(2, 1)  # that it is damaged is lost on the way
    s.hand(late)
    s.peace(10.0)
    assert s.guard.seen["copies refilled"] == 1
    assert s.guard.seen["damage noted"], "INV-8: a damaged copy was filled without a note of its damage"


def lost_vote_for_an_epoch_to_come() -> None:
    """A copy voted in an epoch that the primary knows nothing of, and was damaged: that primary cannot fill it alone.

    3 stands in epoch 3 and 2 votes for it; the vote is on its way. 2 loses its copy, and 1, primary of epoch 2,
    fills it: were that all, 2 could vote once more in epoch 3.
    """
    s = Script(3)
    s.open(1)
    s.stand(3, 2)
    s.deliver(3, 2, peers.VoteAsked)
    late = s.take(2, 3, peers.VoteGiven)
    s.damage(2)
    s.drop()
    for _ in range(5):
        s.beat(1)
        s.talk(1, 2)
        s.drop(1, 3)
    filled = s.machines[2].state is not State.DAMAGED
    if filled:
        s.crash(1)
        s.start(1)
        s.elected(2, 1)
    s.hand(late)
    assert not filled, "INV-8: filled with a state that does not hold the note of its damage"
    assert s.leads(3)
    s.peace()


def damage_on_every_second_server() -> None:
    """Two of five lose their copies one after the other: nothing that was acknowledged is lost."""
    s = Script(5)
    s.open(1)
    written = [s.put(1, value, key=f"/app/{value}") for value in "abc"]
    s.talk()
    assert all(s.result(one) for one in written)
    s.damage(2)
    s.damage(1)
    s.drop()
    s.peace()
    assert [s.value(f"/app/{value}") for value in "abc"] == ["a", "b", "c"]
    assert s.guard.seen["copies refilled"] == 2


def lower_generation() -> None:
    """A copy of a lower generation is never merged: it is not heard, and is filled anew when it hears of the higher."""
    s = Script(3, gen=1, old=3)
    s.time_out(3)
    for other in (1, 2):
        s.doubt(other)
    s.talk()
    assert not s.leads(3), "INV-17: a server of a lower generation leads"
    s.elect(1, 2)
    s.talk(1, 2)
    written = s.put(1, "new")
    s.talk(1, 2)
    assert s.result(written)
    s.beat(1)
    s.deliver(1, 3, peers.Append, -1)
    assert s.machines[3].state is State.DAMAGED, "INV-17: a copy of a lower generation is merged"
    s.peace()
    assert s.value("/app/only-here") is None
    assert s.machines[3].store.get("/app/only-here") is None
    assert s.raft(3).gen == 1


# --- hand-over --------------------------------------------------------------------------------------------------------


def hand_over_to_a_laggard() -> None:
    """The one chosen is filled first, and takes over only when it has everything; meanwhile nothing new is taken."""
    s = Script(3)
    s.open(1)
    s.put(1, "it lacks this")
    s.talk(1, 2)
    asked = s.ask(1, messages.HandOver(3))
    assert not s.under_way(1, 3, peers.TakeOver), "the one chosen lacks entries"
    assert isinstance(s.refused(s.put(1, "meanwhile")), NotPrimary)
    s.talk()
    assert s.leads(3)
    s.beat(3)
    s.talk()
    assert s.result(asked)["primary"] == 3
    s.peace()
    assert s.value() == "it lacks this"


def hand_over_that_fails() -> None:
    """The one chosen does not answer: after a while the primary goes on, and a late order to take over is ignored."""
    s = Script(3)
    s.open(1)
    asked = s.ask(1, messages.HandOver(3))
    late = s.take(1, 3, peers.TakeOver)
    s.cuts = {(1, 3), (3, 1)}
    s.drop()
    s.run(2 * s.settings.hand_over)
    s.refused(asked)
    leader = next(number for number in (1, 2) if s.leads(number))
    s.cuts = set()
    next_one = 3 - leader
    s.elect(next_one, 3)
    s.talk(next_one, 3)
    assert s.leads(next_one)
    s.hand(late)
    assert not s.under_way(3, 0, peers.VoteAsked), "an order of an earlier reign is followed"
    s.peace()


# --- exactly once -----------------------------------------------------------------------------------------------------


def retry_after_a_fail_over() -> None:
    """A write was committed, its answer lost with the primary; the retry at the next one gets that answer."""
    s = Script(3)
    s.open(1)
    s.put(1, "once", id="x")
    revision = s.truth.revisions[-1]
    s.deliver(1, 2, peers.Append)
    s.crash(1)
    s.flight.clear()
    s.elect(2, 3)
    s.talk(2, 3)
    again = s.put(2, "once", id="x")
    s.talk(2, 3)
    once_more = s.put(2, "once", id="x")
    s.talk(2, 3)
    assert s.result(again) == s.result(once_more) == {"revision": revision + 1, "succeeded": True}
    s.peace()


def retry_at_a_copy_from_a_snapshot() -> None:
    """A primary whose state came as a snapshot knows the answers of before: a retry is not done again."""
    s = Script(3)
    s.open(1)
    first = s.put(1, "once", id="x")
    s.talk()
    s.damage(3)
    for _ in range(6):
        s.beat(1)
        s.talk()
    assert s.machines[3].state is State.FOLLOWER
    s.elect(3, 2)
    s.talk(2, 3)
    overwritten = s.put(3, "newer")
    s.talk(2, 3)
    again = s.put(3, "once", id="x")
    s.talk(2, 3)
    assert s.result(again) == s.result(first), "INV-14: a retry was done again"
    assert s.result(overwritten)
    s.peace()
    assert s.value() == "newer"


def retry_that_comes_too_late() -> None:
    """The answer is forgotten: the retry is refused, its outcome unknown, and not done again; what is new is done."""
    s = Script(3, settings=replace(SETTINGS, requests_kept=3))
    s.open(1)
    since = s.committed(1)
    s.put(1, "first", id="x", since=since)
    for number in range(6):
        s.put(1, number)
    s.talk()
    late = s.put(1, "first", id="x", since=since)
    s.talk()
    assert isinstance(s.refused(late), RequestExpired), "INV-14: an old retry was done again"
    fresh = s.put(1, "last", id="y", since=s.committed(1))
    s.talk()
    assert s.result(fresh)
    s.elect(2, 3)
    s.talk()
    assert isinstance(s.refused(_retried(s, 2, since)), RequestExpired)
    s.peace()
    assert s.value() == "last"


def _retried(s: Script, number: int, since: int) -> int:
    s.beat(number)
    s.talk()
    request = s.put(number, "first", id="x", since=since)
    s.talk()
    return request


def watch_over_a_fail_over() -> None:
    """A watcher goes on at the next primary where it was: no gap, nothing twice, in order."""
    s = Script(3)
    s.open(1)
    batches: list[dict[str, Any]] = []
    start = first = s.truth.revisions[-1] + 1

    def look(number: int) -> None:
        nonlocal start
        found = s.result(s.ask(number, messages.Watch("/app/", start, 0.0)))
        batches.append(found)
        start = found["to"] + 1

    for value in range(3):
        s.put(1, value)
        s.talk()
    look(1)
    s.put(1, "told nobody")
    s.talk(1, 2)
    s.crash(1)
    s.flight.clear()
    s.elect(2, 3)
    s.talk(2, 3)
    s.put(2, "behind")
    s.talk(2, 3)
    look(2)
    s.peace()
    reached = check_watch("/app/", first, batches, s.truth.changes_from(first))
    assert reached == start - 1
    assert sum(len(batch["events"]) for batch in batches) == 5, "INV-15: a change was not told"


def append_of_an_earlier_reign() -> None:
    """A component's entry belongs to the reign it was made in: in another it is refused, or answered as before."""
    s = Script(3)
    s.open(1)
    epoch = s.raft(1).promised
    done = s.ask(1, messages.AppendSystem("a", epoch, "kind", "", b"1"))
    s.talk()
    s.elect(2, 3)
    s.talk()
    stale = s.ask(2, messages.AppendSystem("b", epoch, "kind", "", b"2"))
    assert isinstance(s.refused(stale), CoveyError)
    again = s.ask(2, messages.AppendSystem("a", epoch, "kind", "", b"1"))
    assert s.result(again) == s.result(done)
    assert isinstance(s.entry(2, s.result(done)["index"]).body, entries.Committed)  # type: ignore[union-attr]
    s.peace()


SCRIPTS = (
    one_comes_and_one_goes,
    two_at_once,
    in_force_when_appended,
    learner_does_not_count,
    learner_is_asked_for_its_vote,
    removed_primary,
    damaged_copy_keeps_silent,
    lost_acknowledgement,
    damaged_copy_hears_an_earlier_reign,
    lost_vote_for_an_epoch_to_come,
    damage_on_every_second_server,
    lower_generation,
    hand_over_to_a_laggard,
    hand_over_that_fails,
    retry_after_a_fail_over,
    retry_at_a_copy_from_a_snapshot,
    retry_that_comes_too_late,
    watch_over_a_fail_over,
    append_of_an_earlier_reign,
)

"""Votes in virtual time: rounds, defaults, deaths, partitions, and a coordinator that dies at any step of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, takewhile
from typing import Any

import pytest
from covey.bus.machine import Effect
from covey.components.groups.messages import CallVote, Tally, Terms
from covey.components.groups.questions import CastVote, Expel, JoinGroup, ProposeVote, SetState, Show, Transcript
from covey.errors import Ambiguous, CoordinatorChanged, Denied, Frozen, NotFound, Refused, Rejected, UsageError
from groups_world import GROUP, Cluster, Party, formed


def voting(seed: int, *votes: Any) -> Cluster:
    """Return a cluster with one member a node, which vote as said in each phase; None: it has no vote."""
    cluster = formed(seed, len(votes))
    for party, said in zip(cluster.parties, votes, strict=True):
        if said is not None:
            party.judge = judge(said)
    cluster.world.run(0.1)
    return cluster


def judge(said: str) -> Callable[[dict[str, Any]], Any]:
    words = said.split()
    return lambda asked: words[min(asked["phase"], len(words)) - 1]


def tallies(party: Party) -> list[Tally]:
    return list(party.cluster.world.machine(party.node, "groups").replica.get(party.group).tallies)


def outcome(party: Party, text: str) -> list[str]:
    return [event.kind for event in party.events if event.body == text.encode()]


ROUNDS = [
    (["approve", "approve", "approve"], 1, 1, "decided"),
    (["approve", "reject", "approve"], 3, 1, "rejected"),
    (["approve", "continue", "approve"], 3, 3, "decided"),
    (["continue approve", "continue approve", "continue approve"], 5, 2, "decided"),
    (["continue", "continue reject", "continue"], 2, 2, "rejected"),
    (["continue", "continue", "continue"], 1, 1, "decided"),
]


@pytest.mark.parametrize(("votes", "phases", "rounds", "end"), ROUNDS)
def test_rounds(votes: list[str], phases: int, rounds: int, end: str) -> None:
    cluster = voting(31, *votes)
    proposer = cluster.parties[1]
    asked = proposer.propose("x", phases)
    cluster.world.eventually(lambda: asked.done, 2.0, "the proposer is told")
    cluster.settle()
    assert [outcome(party, "x") for party in cluster.parties] == [[end]] * 3
    assert (asked.error is None) == (end == "decided")
    [tally] = tallies(cluster.parties[2])
    assert len(tally.rounds) == rounds and tally.outcome == end
    if end == "rejected":
        assert isinstance(asked.error, Rejected)
        assert {"phase": rounds, "node": 2, "member": "p2", "vote": "reject", "why": "as I see it", "how": "voted"} in (
            asked.error.details["votes"]
        )
    cluster.check_promises()


@pytest.mark.parametrize(("default", "end"), [("approve", "decided"), ("reject", "rejected")])
def test_the_silent_the_dead_and_those_without_a_vote_have_the_default(default: Any, end: str) -> None:
    cluster = voting(32, "approve", "approve", None, "approve", "approve")
    mute, doomed = cluster.parties[3:]
    mute.judge = lambda asked: cluster.world.after(0, lambda: None)  # asked, and never says a vote
    mute.vote = lambda: None  # type: ignore[method-assign]
    asked = cluster.parties[0].propose("x", default=default, deadline=2.0)
    cluster.world.run(0.01)
    cluster.kill(doomed)
    cluster.world.eventually(lambda: asked.done, 2.5, "the proposer is told")
    cluster.settle()
    [tally] = tallies(cluster.parties[0])
    assert tally.outcome == end
    hows = {cast.party: cast.how for cast in tally.rounds[0]}
    if default == "approve":
        assert (hows["p1"], hows["p3"], hows["p4"]) == ("voted", "abstained", "silent")
        assert cluster.parties[0].kinds()[-1] == "message"
        failed = next(e for e in cluster.parties[0].events if e.kind == "failed")
        assert failed.sequence > next(e.sequence for e in cluster.parties[0].events if e.kind == end)


def test_a_vote_ends_when_the_last_vote_is_there_or_at_its_deadline() -> None:
    """INV-26: a failure waits for one round at most."""
    cluster = voting(33, "approve", "approve", "approve")
    silent = cluster.parties[2]
    silent.vote = lambda: None  # type: ignore[method-assign]
    asked = cluster.parties[0].propose("x", phases=1, deadline=1.5)
    cluster.world.run(0.2)
    assert not asked.done and cluster.world.machine(2, "groups").parties.phase(GROUP) == "voting 1/1"
    cluster.kill(silent)
    cluster.world.eventually(lambda: asked.done, 0.5, "a dead voter is not waited for")
    cluster.world.eventually(lambda: cluster.parties[0].kinds()[-1] == "failed", 0.5, "its failure is seen")


def test_what_waits_behind_a_vote_comes_after_it_changes_first() -> None:
    """INV-23: one protocol at a time; nothing is withdrawn because a vote took its time."""
    cluster = voting(34, "approve", "approve", "approve")
    silent = cluster.parties[2]
    silent.vote = lambda: None  # type: ignore[method-assign]
    asked = cluster.parties[0].propose("x", deadline=8.0, default="approve")
    cluster.world.run(0.1)
    said = cluster.parties[1].say("later")
    again = cluster.parties[1].propose("y", deadline=0.2, default="approve")
    fresh = cluster.party(3, "fresh")
    cluster.world.run(7.5)
    assert not asked.done and not said.done and fresh.joined is None
    cluster.world.eventually(lambda: again.done, 3.0, "all is decided")
    cluster.world.run(0.1)
    kinds = [(e.kind, e.body) for e in cluster.parties[0].events][-4:]
    assert kinds == [("decided", b"x"), ("joined", b""), ("message", b"later"), ("decided", b"y")]


def test_a_group_votes_on_what_it_says() -> None:
    cluster = Cluster(35, 3)
    cluster.world.run(0.1)
    machine = cluster.world.machine(1, "groups")
    founder = cluster.world.ask(1, "groups", JoinGroup(GROUP, "p1", b"old", voted=("join", "expel", "state")))
    cluster.world.eventually(lambda: founder.done, 1.0)
    first = cluster.party(1, "p1")
    first.judge = lambda asked: "reject" if asked["op"] == "state" or asked["body"] == b"for no reason" else "approve"
    second = cluster.party(2, "p2")
    cluster.world.eventually(lambda: second.joined is not None, 2.0, "the vote lets it in")
    assert [cast.vote for cast in tallies(first)[0].rounds[0]] == ["approve"]
    second.judge = judge("approve")
    changed = second.ask(SetState(GROUP, "p2", b"new"))
    expelled = second.ask(Expel(GROUP, "p2", "p1@1", b"dislike"))
    cluster.world.eventually(lambda: expelled.done, 3.0)
    assert isinstance(changed.error, Rejected) and machine.replica.get(GROUP).state == b"old"
    assert expelled.error is None, "who is to go has no voice in it"
    cluster.world.run(0.1)
    assert first.events[-1].kind == "expelled" and first.events[-1].body == b"dislike"
    first.alive = False
    assert [m.party for m in cluster.world.machine(3, "groups").replica.get(GROUP).members.values()] == ["p2"]
    third = cluster.world.ask(3, "groups", JoinGroup(GROUP, "p3"))
    second.judge = judge("reject")
    cluster.world.eventually(lambda: third.done, 2.0)
    assert isinstance(third.error, Rejected)


def test_expulsion_needs_no_vote_where_the_group_does_not_say_so() -> None:
    cluster = voting(36, "approve", "approve", "approve")
    twin = cluster.party(1, "p2")
    cluster.settle()
    victim, other = cluster.parties[1], cluster.parties[2]
    asked = [other.ask(Expel(GROUP, "p3", name, b"why")) for name in ("p2", "nobody", "p2@2")]
    outside = cluster.world.ask(3, "groups", Expel(GROUP, "operator", "p1", outside=True))
    system = cluster.world.ask(3, "groups", Expel("sys.registry", "operator", "registry", outside=True))
    cluster.world.run(0.5)
    assert isinstance(asked[0].error, Ambiguous) and isinstance(asked[1].error, NotFound)
    assert asked[2].error is None and outside.error is None
    assert isinstance(system.error, Denied)
    assert [(e.who[0].party, e.body) for e in victim.events if e.kind == "expelled"] == [("p2", b"why"), ("p1", b"")]
    cluster.parties[0].alive = victim.alive = False
    assert [m.party for m in cluster.world.machine(3, "groups").replica.get(GROUP).members.values()] == ["p3", "p2"]
    assert twin.alive


def test_terms_that_cannot_be_and_votes_that_come_too_late() -> None:
    cluster = voting(37, "approve", "approve", "approve")
    first = cluster.parties[0]
    wrong = [first.propose("x", phases=9), first.propose("x", deadline=9999.0), first.propose("x", phases=0)]
    late = first.ask(CastVote(GROUP, "p1", 99, 1, "approve"))
    unknown = first.ask(Transcript("nowhere"))
    cluster.world.run(0.2)
    assert all(isinstance(each.error, UsageError) for each in wrong)
    assert isinstance(late.error, Refused) and isinstance(unknown.error, NotFound)


def test_an_operator_proposes_without_being_a_member() -> None:
    cluster = voting(49, "approve", "approve", "approve")
    terms = Terms(1, "reject", 1.0)
    asked = cluster.world.ask(2, "groups", ProposeVote(GROUP, "operator", b"x", terms, outside=True))
    nobody = cluster.world.ask(2, "groups", ProposeVote("nowhere", "operator", b"x", terms, outside=True))
    cluster.world.eventually(lambda: asked.done, 1.0)
    cluster.settle()
    assert [outcome(party, "x") for party in cluster.parties] == [["decided"]] * 3
    assert isinstance(nobody.error, NotFound)


def test_a_minority_decides_nothing_and_its_proposer_is_told() -> None:
    """INV-27: a cut in the middle of a vote."""
    cluster = voting(38, "approve", "continue", "continue")
    for party in cluster.parties:
        party.vote, slow = (lambda: None), party.vote  # type: ignore[method-assign]
        cluster.world.after(1.0, lambda party=party, slow=slow: setattr(party, "vote", slow))
    lonely = cluster.parties[2].propose("x", phases=3, deadline=30.0)
    cluster.world.run(0.3)
    cluster.isolate(3)
    cluster.world.run(7.0)
    assert isinstance(lonely.error, Frozen) and cluster.parties[2].kinds()[-1] == "frozen"
    cluster.show_view(1, 2)
    cluster.parties[2].alive = False
    cluster.world.run(1.0)
    assert outcome(cluster.parties[0], "x") == ["rejected"] == outcome(cluster.parties[1], "x")
    assert tallies(cluster.parties[0])[0].outcome == "withdrawn"
    assert cluster.parties[0].kinds()[-1] == "failed"


def struck_at(at: int, harm: str) -> str:
    """Run a vote, harm somebody at this of its steps; return how it ended, or nothing if it had not that many."""
    cluster = voting(39, "continue approve", "continue approve", "continue approve")
    asked = cluster.parties[1].propose("x", phases=2, default="approve", deadline=0.5)
    left, struck = at, False

    def strike() -> None:
        if harm == "coordinator restarts":
            cluster.restart_groups(1)
        elif harm == "coordinator cut off":
            cluster.isolate(1)
            cluster.elect(3)
        elif harm == "voter dies":
            cluster.kill(cluster.parties[2])
        else:
            cluster.restart_groups(3)

    def step(node: int, service: str, input: Any, effects: list[Effect]) -> None:
        nonlocal left, struck
        left -= service == "groups" and type(getattr(input, "message", None)).__name__ in STEPS
        if left < 0 and not struck:
            struck = True
            cluster.world.after(0, strike)

    cluster.world.on_step.append(step)
    cluster.world.eventually(lambda: asked.done, 12.0, f"step {at}: the proposer is told")
    cluster.world.on_step.remove(step)
    cluster.world.run(0.01)
    cluster.rejoin()
    cluster.settle()
    ends = {tuple(outcome(party, "x")) for party in cluster.parties if party.alive}
    assert len(ends) == 1, f"step {at}: {ends}"
    assert ("decided",) in ends if asked.error is None else isinstance(asked.error, CoordinatorChanged), f"{at}: {ends}"
    cluster.check_promises()
    return ("decided" if asked.error is None else "changed") if struck else ""


@pytest.mark.parametrize("harm", ["coordinator restarts", "coordinator cut off", "voter dies", "voter's node restarts"])
def test_harm_at_every_step_of_a_vote(harm: str) -> None:
    """INV-23, 24: whoever dies when, all members get the same outcome, and the proposer is told the same."""
    ends = list(takewhile(bool, (struck_at(at, harm) for at in count())))
    assert len(ends) > 8
    assert set(ends) == ({"decided", "changed"} if harm.startswith("coordinator") else {"decided"})


STEPS = {"Propose", "CallVote", "Votes", "Announce", "SystemAppended"}


def test_calls_are_repeated_to_those_who_did_not_answer() -> None:
    cluster = voting(40, "approve", "approve", "approve")
    calls: list[int] = []
    cluster.world.on_step.append(
        lambda node, service, input, effects: calls.extend(
            effect.to.node for effect in effects if isinstance(getattr(effect, "message", None), CallVote)
        )
    )
    cluster.world.cut(1, 3, one_way=True)
    asked = cluster.parties[0].propose("x", deadline=4.0)
    cluster.world.run(1.2)
    assert calls == [1, 2, 3, 3, 3]
    cluster.world.heal()
    cluster.world.eventually(lambda: asked.done, 1.0)
    assert asked.error is None
    shown = cluster.parties[0].ask(Show(GROUP))
    cluster.world.run(0.1)
    assert shown.result["phase"] == "idle"

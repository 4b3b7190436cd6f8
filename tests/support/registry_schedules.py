"""Classic schedules of elections, logs and reads, each a function: what chance finds in few of a thousand storms.

Played on real machines by `registry_script.py`, whose guard watches every step; a schedule adds what it alone can
know. They are run as they are by `test_registry_schedules.py`, and by `test_registry_mutants.py` with mistakes planted.
Servers are named by what they do in the schedule; the number of an entry is its index.
"""

from __future__ import annotations

from covey.components.registry import messages, peers
from covey.components.registry.settings import Settings
from covey.components.registry.states import State
from covey.errors import KeyNotFound, NoQuorum, NotPrimary, ReadOnly
from msgspec.structs import replace
from registry_script import SETTINGS, Flight, Script

# --- elections and votes ----------------------------------------------------------------------------------------------


def figure_eight() -> None:
    """An entry of an old epoch is on a majority of disks, is not committed by that, and is cut away (figure 8)."""
    s = Script(5)
    s.elect(1, 2, 3)
    _send(s, 1, 2, 2)  # entry 2 of epoch 2 is on 1 and 2
    s.crash(1)
    s.elect(5, 3, 4)  # entry 2 of epoch 3 is on 5 alone
    s.crash(5)
    s.flight.clear()
    s.start(1)
    s.elect(1, 2, 3)
    _send(s, 1, 2, 3)
    _send(s, 1, 3, 2)
    counted = s.committed(1)
    assert [s.durable(n) for n in (1, 2, 3)] == [3, 3, 2], [s.kinds(n) for n in (1, 2, 3)]
    s.crash(1)
    s.start(5)
    s.elect(5, 3, 4)
    s.talk(3, 4, 5)
    assert counted == 1, "INV-4: an entry of an old epoch was committed by counting its copies"
    s.peace()
    assert s.guard.seen["logs cut"]


def _send(s: Script, primary: int, to: int, index: int) -> None:
    """Let a server have its primary's entries up to an index, and the primary hear of it."""
    while s.durable(to) < index:
        s.deliver(primary, to, peers.Append)
        s.deliver(to, primary, peers.Appended)


def lost_vote() -> None:
    """A voter crashes right after its vote: the vote is on its disk, so it gives no second one in that epoch."""
    s = Script(3)
    s.stand(1, 2)
    s.stand(3, 2)
    s.deliver(1, 2, peers.VoteAsked)
    s.restart(2)
    s.deliver(3, 2, peers.VoteAsked)
    s.talk()
    assert s.leads(1)
    assert not s.leads(3)
    s.peace()


def vote_waits_for_the_disk() -> None:
    """The vote is not on the disk yet: it is not given; after a crash the voter is free again."""
    s = Script(3)
    s.stand(1, 2)
    s.stand(3, 2)
    s.slow.add(2)
    s.deliver(1, 2, peers.VoteAsked)
    assert not s.under_way(2, 1, peers.VoteGiven), "INV-7: a vote left before it was durable"
    s.restart(2)
    s.slow.clear()
    s.deliver(3, 2, peers.VoteAsked)
    s.talk()
    assert s.leads(3)
    assert not s.leads(1)
    s.peace()


def candidate_waits_for_its_disk() -> None:
    """A candidate asks for votes only when its own is durable, and its own counts only then."""
    s = Script(3)
    s.slow.add(1)
    s.time_out(1)
    s.doubt(2)
    s.deliver(1, 2, peers.PreVoteAsked)
    s.deliver(2, 1, peers.PreVoteGiven)
    assert not s.under_way(1, 0, peers.VoteAsked), "INV-7: a candidate stood before its own vote was durable"
    s.restart(1)
    s.slow.clear()
    s.elect(3, 2)
    s.peace()


def vote_of_an_earlier_life() -> None:
    """A vote of an earlier epoch comes when its candidate has crashed and stands anew: it does not count."""
    s = Script(3)
    s.stand(1, 2)
    for voter in (2, 3):
        s.deliver(1, voter, peers.VoteAsked)
    late = s.take(2, 1, peers.VoteGiven)
    s.drop(3, 1)
    s.restart(1)
    s.stand(3, 2)
    s.stand(1, 2)
    s.deliver(3, 2, peers.VoteAsked)
    s.deliver(2, 3, peers.VoteGiven)
    assert s.leads(3)
    s.hand(late)
    assert not s.leads(1), "INV-1: a vote of an earlier epoch was counted"
    s.peace()


def newer_log_is_not_outvoted() -> None:
    """Who lacks a committed entry gets no vote from one that has it."""
    s = Script(3)
    s.open(1)
    written = s.put(1, "kept")
    s.talk(1, 2)
    assert s.result(written)
    s.crash(1)
    s.drop()
    s.elected(3, 2)
    assert s.elected(2, 3) or s.leads(3)
    s.peace()
    assert s.value() == "kept"


def half_is_no_majority() -> None:
    """Four servers in two halves that do not hear one another: neither has a primary."""
    s = Script(4)
    for one, other in ((1, 2), (3, 4)):
        s.elected(one, other)
    assert not s.leads(1)
    assert not s.leads(3)
    s.peace()


def rejoining_server_deposes_nobody() -> None:
    """A server that was cut off for long comes back: the primary stays, in its epoch (PreVote)."""
    s = Script(3)
    s.open(1)
    epoch = s.raft(1).promised
    s.cuts = {(1, 3), (3, 1), (2, 3), (3, 2)}
    s.run(20.0)
    s.cuts = set()
    s.run(3.0)
    assert s.leads(1), "a healthy primary was deposed"
    assert s.raft(1).promised == epoch, "an election for nothing"
    s.peace()


def two_that_a_third_sees() -> None:
    """Two servers do not hear one another, the third hears both: no endless elections, and writes stay open."""
    for primary in (1, 3):
        s = Script(3)
        s.open(primary)
        s.cuts = {(1, 2), (2, 1)}
        s.run(30.0)
        assert len(s.guard.reigns) <= 2, f"{len(s.guard.reigns)} reigns"
        leader = next(number for number in s.all if s.leads(number))
        written = s.put(leader, "through")
        s.run(1.0)
        assert s.result(written)
        s.peace()


def cut_off_while_all_others_lead_on() -> None:
    """A primary that nobody answers steps down, says so to those who wait, and refuses what is new."""
    s = Script(3)
    s.open(1)
    waiting, reading = s.put(1, "doubtful"), s.read(1)
    s.drop()
    s.cuts = {(1, 2), (1, 3), (2, 1), (3, 1)}
    s.wait(1, 3 * s.settings.election_high)
    assert not s.leads(1), "a primary without a majority leads on"
    assert s.in_doubt(waiting)
    assert isinstance(s.refused(reading), NotPrimary)
    assert isinstance(s.refused(s.put(1, "refused")), NotPrimary)
    assert isinstance(s.refused(s.read(1)), NotPrimary)
    stale = s.answers[s.ask(1, messages.Get("/app/a", "stale"))]
    assert isinstance(stale, KeyNotFound), stale
    s.elect(2, 3)
    s.talk(2, 3)
    s.peace()
    assert s.value() is None


def all_start_at_once() -> None:
    """Servers that start in the same instant elect one of them, though they wait by the same clock."""
    for size in (2, 3, 4, 5):
        Script(size).peace(30.0)


# --- the log ----------------------------------------------------------------------------------------------------------


def overtaken_and_doubled() -> None:
    """Entries and answers overtake one another and come twice: nothing is cut, nothing counts twice."""
    s = Script(3)
    s.open(1)
    for value in "abc":
        s.put(1, value)
    first, second = s.under_way(1, 2, peers.Append)
    s.drop(1, 2)
    s.hand(second)
    s.hand(first)
    s.hand(second)
    at = s.last(2)
    assert at == s.last(1) - 1, s.kinds(2)
    s.hand(first)
    assert s.last(2) == at, "an old message cut away what came after it"
    answers = s.under_way(2, 1, peers.Appended)
    s.drop(2, 1)
    for answer in [*reversed(answers), *answers]:
        s.hand(answer)
    assert s.committed(1) == at
    s.hand(first)
    assert s.last(2) == at, "an old message cut away what is committed"
    s.talk()
    s.peace()
    assert s.value() == "c"


def _tail_that_never_was(s: Script) -> int:
    """Give server 2 two entries of a primary that nobody else heard of; 3 leads then. Return the last sound index."""
    s.open(1)
    sound = s.last(1)
    for value in ("never", "was"):
        s.put(1, value)
        s.deliver(1, 2, peers.Append)
        s.deliver(2, 1, peers.Appended)
    assert s.last(2) == sound + 2
    s.crash(1)
    s.flight.clear()
    s.elect(3, 4, 5)
    s.talk(3, 4, 5)
    s.put(3, "is")
    s.talk(3, 4, 5)
    assert s.committed(3) > sound + 2
    s.drop(3, 2)
    return sound


def commit_beyond_what_fits() -> None:
    """A heartbeat tells a server whose tail is another one how far all is committed: nothing of that tail is."""
    s = Script(5)
    sound = _tail_that_never_was(s)
    s.beat(3)
    s.deliver(3, 2, peers.Append)
    s.deliver(2, 3, peers.Appended)  # it does not fit: the entries that do are sent …
    s.drop(3, 2)  # … and lost
    s.beat(3)
    one = s.deliver(3, 2, peers.Append)
    assert one.message.committed > sound and not one.message.records, one
    assert s.committed(2) == sound
    s.peace()
    assert s.value() == "is"


def crash_between_cut_and_entries() -> None:
    """A tail is cut away, and the power fails before what follows is written, or before the cut is."""
    for kept in (0, 1, 2):
        s = Script(5)
        sound = _tail_that_never_was(s)
        s.beat(3)
        s.deliver(3, 2, peers.Append)
        s.deliver(2, 3, peers.Appended)
        s.slow.add(2)
        s.talk(2, 3)
        s.restart(2, kept)
        s.slow.clear()
        assert s.durable(2) == (sound + 2, sound, sound + 1)[kept], f"{kept} records: {s.kinds(2)}"
        s.restart(2)
        s.peace()
        assert s.value() == "is"


def acknowledged_is_durable() -> None:
    """A follower acknowledges what is on its disk, and the primary counts its own copy when its own disk has it."""
    s = Script(3)
    s.open(1)
    s.slow.add(1)
    one = s.put(1, "fast")
    s.talk(1, 2)
    assert one not in s.answers
    s.talk(1, 3)
    assert s.result(one), "a majority of others is enough"
    s.sync(1)
    s.slow.add(2)
    written = s.put(1, "slow")
    s.deliver(1, 2, peers.Append)
    s.talk(1, 2)
    assert s.committed(1) < s.last(1)
    s.crash(2)
    s.crash(1)
    s.flight.clear()
    assert written not in s.answers
    s.slow.clear()
    s.start(2)
    s.elect(2, 3)
    s.peace()
    assert s.value() == "fast"


def snapshot_among_entries() -> None:
    """A snapshot is installed while entries of before and behind it are under way: nothing is said too early."""
    for kept in (0, 1, 2):
        s = Script(3, settings=_trims())
        s.open(1)
        early: list[Flight] = []
        for number in range(8):
            s.put(1, f"{number} {'x' * 300}")
            early += s.under_way(1, 3, peers.Append)
            s.drop(1, 3)
            s.talk(1, 2)
            s.beat(1)
        assert s.raft(1).log.base.index > s.last(3), "the primary has trimmed what the third lacks"
        s.slow.add(3)
        for _ in range(6):
            s.beat(1)
            while not any(isinstance(one.message, peers.Part) for one in s.flight) and s.under_way(1, 3):
                s.deliver(1, 3)
                s.talk(3, 1)
        s.talk(1, 3)
        s.put(1, "behind the snapshot")
        s.talk(1, 2)
        for one in early:
            s.hand(one)
        s.talk(1, 3)
        s.restart(3, kept)
        s.slow.clear()
        for one in early:
            s.hand(one)
        s.talk(1, 3)
        s.peace()
        assert s.value() == "behind the snapshot"
        assert s.guard.seen["snapshots installed"] >= 1


def hint_outlives_a_restart() -> None:
    """What a disk says is committed is committed after a restart too, and is not read as older than it was."""
    s = Script(3)
    s.open(1)
    for value in ("one", "two"):
        s.put(1, value)
        s.talk()
        s.beat(1)
        s.talk()
    known = s.disks[2].copy.committed
    assert known > 2
    s.restart(2)
    assert s.committed(2) >= known, f"INV-6: committed went back from {known} to {s.committed(2)} over a restart"
    s.peace()


def proposals_of_a_past_reign() -> None:
    """A deposed primary forgets what it proposed: another's entry takes that place, and nobody hears a wrong answer."""
    s = Script(3)
    s.open(1)
    lost = s.put(1, "lost")
    s.drop()
    s.elect(2, 3)
    s.talk(2, 3)
    s.put(2, "is")
    s.beat(2)
    s.talk()
    assert s.in_doubt(lost)
    s.peace()
    assert s.value() == "is"


# --- reads ------------------------------------------------------------------------------------------------------------


def _deposed_unaware(s: Script) -> None:
    """1 leads and wrote "old"; 2 leads now and wrote "new"; 1 has slept and knows nothing of it."""
    s.put(1, "old")
    s.talk()
    s.beat(1)
    s.talk()
    s.elect(2, 3)
    s.talk(2, 3)
    written = s.put(2, "new")
    s.talk(2, 3)
    assert s.result(written)
    s.drop(2, 1)


def deposed_primary_reads() -> None:
    """A primary that slept while another one was elected answers no exact read."""
    s = Script(3)
    s.open(1)
    _deposed_unaware(s)
    assert s.leads(1)
    read = s.read(1)
    watch = s.ask(1, messages.Watch("/app/", s.truth.revisions[-1], 1.0))
    assert read not in s.answers, f"INV-10: a deposed primary reads {s.answers[read]}"
    s.talk()
    assert isinstance(s.refused(read), NotPrimary), "INV-10: a deposed primary reads"
    assert isinstance(s.refused(watch), NotPrimary)
    s.peace()


def answer_to_an_older_round() -> None:
    """An answer to a message that was sent before the read came proves nothing for it (ReadIndex needs rounds)."""
    s = Script(3)
    s.open(1)
    s.put(1, "old")
    s.talk()
    s.beat(1)
    s.deliver(1, 3, peers.Append)
    early = s.take(3, 1, peers.Appended)  # it was given before 3 left this primary
    s.drop()
    _later_reign(s)
    read = s.read(1)
    s.hand(early)
    assert read not in s.answers, f"INV-10: a deposed primary reads {s.answers[read]}"
    s.talk()
    assert isinstance(s.refused(read), NotPrimary)
    s.peace()


def _later_reign(s: Script) -> None:
    s.elect(2, 3)
    s.talk(2, 3)
    written = s.put(2, "new")
    s.talk(2, 3)
    assert s.result(written)
    s.drop(2, 1)
    s.drop(3, 1)


def message_of_an_earlier_reign() -> None:
    """A late message of a primary's earlier reign is refused: in its present reign that is no answer to any round."""
    s = Script(3)
    s.open(1)
    for _ in range(20):
        s.talk()
        s.beat(1)
    late = s.take(1, 2, peers.Append, -1)
    s.talk()
    s.put(1, "old")
    s.talk()
    s.elect(1, 2, 3)
    s.talk()
    s.beat(1)
    s.talk()
    s.hand(late)  # 2 follows 1 already, in the later reign
    s.talk()
    _later_reign(s)
    read = s.read(1)
    assert read not in s.answers, f"INV-10: a deposed primary reads {s.answers[read]}"
    s.talk()
    assert isinstance(s.refused(read), NotPrimary)
    s.peace()


def read_in_an_unsettled_reign() -> None:
    """A new primary does not know yet what its predecessor committed: it reads nothing until its own entry is."""
    s = Script(3)
    s.open(1)
    written = s.put(1, "new")
    s.talk(1, 2)
    assert s.result(written)
    s.crash(1)
    s.flight.clear()
    s.elect(2, 3)
    assert s.committed(2) < s.truth.last, "it does not know"
    read = s.read(2)
    s.beat(2)
    s.deliver(2, 3, peers.Append, -1)
    s.deliver(3, 2, peers.Appended)
    if (answer := s.answers.get(read)) is not None:
        assert isinstance(answer, NoQuorum), f"INV-10: {answer} was read in a reign that is not settled"
    assert isinstance(s.refused(s.put(2, "early")), ReadOnly)
    s.talk(2, 3)
    again = s.read(2)
    s.talk(2, 3)
    assert s.result(again)["value"] == "new"
    s.peace()


def writes_wait_for_the_group() -> None:
    """Without the group sys.registry a primary reads, and writes nothing for users."""
    s = Script(3, group=False)
    s.elect(1, 2, 3)
    s.talk()
    assert s.machines[1].state is State.READS, "INV-13: writes opened without the group"
    assert isinstance(s.refused(s.put(1, "early")), ReadOnly)
    s.step(1, messages.GroupFormed())
    assert isinstance(s.refused(s.put(1, "early")), ReadOnly)
    s.talk()
    written = s.put(1, "open")
    s.talk()
    assert s.result(written)


def _trims() -> Settings:
    return replace(SETTINGS, snapshot_bytes=500)


SCRIPTS = (
    figure_eight,
    lost_vote,
    vote_waits_for_the_disk,
    candidate_waits_for_its_disk,
    vote_of_an_earlier_life,
    newer_log_is_not_outvoted,
    half_is_no_majority,
    rejoining_server_deposes_nobody,
    two_that_a_third_sees,
    cut_off_while_all_others_lead_on,
    all_start_at_once,
    overtaken_and_doubled,
    commit_beyond_what_fits,
    crash_between_cut_and_entries,
    acknowledged_is_durable,
    snapshot_among_entries,
    hint_outlives_a_restart,
    proposals_of_a_past_reign,
    deposed_primary_reads,
    answer_to_an_older_round,
    message_of_an_earlier_reign,
    read_in_an_unsettled_reign,
    writes_wait_for_the_group,
)

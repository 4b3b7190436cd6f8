"""Mistakes for the replicated registry, each planted by one function into the classes of the machine.

They are what people have got wrong in replicated logs, and what this one could get wrong. Nothing of this is a switch
in shipped code. Which script, exploration or storm catches which is in `test_registry_mutants.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from covey.components.registry import entries, membership, messages, peers, records, recovery
from covey.components.registry.exact import ExactReads
from covey.components.registry.log import Log
from covey.components.registry.machine import RegistryMachine
from covey.components.registry.progress import Progress
from covey.components.registry.raft import Raft
from covey.components.registry.reign import Reign
from covey.components.registry.states import State
from covey.components.registry.store import Store

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]

# --- the disk ---------------------------------------------------------------------------------------------------------


def say_before_the_sync(patch: Patch) -> None:
    """Votes and acknowledgements leave when their bytes are ordered."""
    order = Raft.order

    def mutant(self: Raft, data: Any, held: Any = ()) -> None:
        order(self, data)
        self.effects.extend(held)

    patch.setattr(Raft, "order", mutant)


def acknowledge_what_was_only_heard(patch: Patch) -> None:
    """A heartbeat's answer says how far the log in memory goes."""
    patch.setattr(Raft, "_accept", lambda self, source, round, match: self.say(source, self._accepted(round, match)))


def count_the_own_copy_unsynced(patch: Patch) -> None:
    """The primary counts its own copy before its own disk has it."""
    real = Reign.advance

    def mutant(self: Reign, now: float) -> None:
        self._raft.journal.durable = self._raft.log.last
        real(self, now)

    patch.setattr(Reign, "advance", mutant)


def forget_the_vote(patch: Patch) -> None:
    """The promised epoch is written, the vote is not."""
    real = records.encode_hard_state
    patch.setattr(records, "encode_hard_state", lambda promised, voted_for=0: real(promised))


def write_no_cut(patch: Patch) -> None:
    """A tail is cut away in memory, and the disk is not told."""
    real = Raft.order

    def mutant(self: Raft, data: Any, held: Any = ()) -> None:
        real(self, [one for one in data if records.kind_of(one) != records.CUT], held)

    patch.setattr(Raft, "order", mutant)


def acknowledge_a_snapshot_unsynced(patch: Patch) -> None:
    """An installed snapshot counts as durable before it is."""
    real = Raft._install

    def mutant(self: Raft, message: peers.Part, record: bytes) -> bool:
        done = real(self, message, record)
        self.journal.durable = self.log.last
        return done

    patch.setattr(Raft, "_install", mutant)


def forget_what_is_committed(patch: Patch) -> None:
    """After a restart only the snapshot is known to be committed."""
    real = recovery._rebuild
    patch.setattr(recovery, "_rebuild", lambda loaded, *rest: real(msgspec.structs.replace(loaded, committed=0), *rest))


# --- elections --------------------------------------------------------------------------------------------------------


def vote_for_any_log(patch: Patch) -> None:
    """A vote is given whatever the candidate lacks."""
    patch.setattr(Raft, "_newer", lambda self, message: True)


def vote_twice(patch: Patch) -> None:
    """A vote is given to whoever asks, again and again in one epoch."""
    real = Raft._vote_asked

    def mutant(self: Raft, now: float, source: int, message: peers.VoteAsked) -> None:
        if self.state is State.FOLLOWER:
            self.voted_for = 0
        real(self, now, source, message)

    _handled(patch, peers.VoteAsked, mutant)


def count_votes_of_any_epoch(patch: Patch) -> None:
    """A vote that comes late counts for the election of now."""
    real = Raft._vote_given

    def mutant(self: Raft, now: float, source: int, message: peers.VoteGiven) -> None:
        real(self, now, source, msgspec.structs.replace(message, epoch=self.promised))

    _handled(patch, peers.VoteGiven, mutant)


def half_is_a_majority(patch: Patch) -> None:
    """With an even number of servers half of them is enough."""
    patch.setattr(membership, "majority", lambda servers: (len(servers.voters) + 1) // 2)


def stand_without_asking_first(patch: Patch) -> None:
    """No PreVote: who misses the primary raises the epoch at once."""

    def mutant(self: Raft, now: float) -> None:
        if self.leader:
            self._forget_leader()
        if self.state is not State.DAMAGED and self.node in self.log.servers.voters:
            self.turn("missed the primary")
            self._stand(now, False)

    patch.setattr(Raft, "_missed", mutant)


def wait_equally_long(patch: Patch) -> None:
    """Election time-outs are the same everywhere."""
    real: Any = Raft.__init__

    class Equal:
        def __init__(self, random: Any) -> None:
            self.getrandbits = random.getrandbits

        def uniform(self, a: float, b: float) -> float:
            return a

    def mutant(self: Raft, *arguments: Any) -> None:
        real(self, *arguments[:-1], Equal(arguments[-1]))

    patch.setattr(Raft, "__init__", mutant)


def lead_without_a_majority(patch: Patch) -> None:
    """No CheckQuorum: a primary that nobody answers leads on."""
    patch.setattr(Reign, "_check_majority", lambda self, now: True)


def learners_keep_their_vote(patch: Patch) -> None:
    """A server that does not know that it is a voter does not answer when asked for its vote."""
    for kind in (peers.PreVoteAsked, peers.VoteAsked):
        _handled(patch, kind, _voters_only(Raft._handlers[kind]))


def _voters_only(real: Any) -> Any:
    def mutant(self: Raft, now: float, source: int, message: Any) -> None:
        if self.node in self.log.servers.voters:
            real(self, now, source, message)

    return mutant


def hear_a_lower_generation(patch: Patch) -> None:
    """The generation of a message is not looked at."""
    real = Raft.receive

    def mutant(self: Raft, now: float, source: int, message: Any) -> None:
        real(self, now, source, msgspec.structs.replace(message, gen=self.gen))

    patch.setattr(Raft, "receive", mutant)


def take_over_when_told_long_ago(patch: Patch) -> None:
    """An order to take over is followed whatever reign it is of."""
    real = Raft._take_over

    def mutant(self: Raft, now: float, source: int, message: peers.TakeOver) -> None:
        real(self, now, self.leader or source, msgspec.structs.replace(message, epoch=self.promised))

    _handled(patch, peers.TakeOver, mutant)


def hand_over_at_once(patch: Patch) -> None:
    """Who is chosen is told to take over before it has everything."""

    def mutant(self: Reign) -> None:
        if self.handing:
            self._raft.say(self.handing.to, peers.TakeOver(self._raft.gen, self.epoch))

    patch.setattr(Reign, "_hand_over_if_level", mutant)


# --- the log ----------------------------------------------------------------------------------------------------------


def count_copies_of_old_epochs(patch: Patch) -> None:
    """An entry is committed when a majority has it, of whatever epoch it is (figure 8)."""

    def mutant(self: Reign, now: float) -> None:
        log = self._raft.log
        index = self._counted(lambda progress: progress.match, self._raft.journal.durable)
        if index > log.committed:
            log.commit(index)

    patch.setattr(Reign, "advance", mutant)


def commit_what_does_not_match(patch: Patch) -> None:
    """A follower commits what the primary says, as far as its own log goes, whether or not that is the same."""
    real = Raft._take

    def mutant(self: Raft, now: float, source: int, message: peers.Append) -> None:
        real(self, now, source, message)
        place = self.log.place(message.previous)
        if place is not None and place.chain == message.chain:
            self.log.commit(max(self.log.committed, min(message.committed, self.log.last)))

    patch.setattr(Raft, "_take", mutant)


def end_the_log_at_each_message(patch: Patch) -> None:
    """A follower cuts away what lies behind the entries of a message, though it may be an old one."""
    real = Raft._take

    def mutant(self: Raft, now: float, source: int, message: peers.Append) -> None:
        real(self, now, source, message)
        end = message.previous + len(message.records)
        if message.records and self.log.base.index < end < self.log.last:
            self.order([self._cut(end)])

    patch.setattr(Raft, "_take", mutant)


def begin_without_an_entry(patch: Patch) -> None:
    """A reign begins without an entry of its own: what was committed before is not known."""
    real = RegistryMachine._propose

    def mutant(self: RegistryMachine, body: entries.Body, waiters: Any) -> None:
        if not isinstance(body, entries.Reigned):
            real(self, body, waiters)
            return
        self.raft.turn("reign settled")
        if self._group_formed:
            self._group(messages.GroupFormed())

    patch.setattr(RegistryMachine, "_propose", mutant)


def keep_old_proposals(patch: Patch) -> None:
    """A deposed primary goes on waiting for what it proposed, by index."""
    patch.setattr(RegistryMachine, "_deposed", lambda self: None)


def write_without_the_group(patch: Patch) -> None:
    """Writes open as soon as reads do."""
    real = RegistryMachine._reigns

    def mutant(self: RegistryMachine, entry: Any) -> None:
        real(self, entry)
        if isinstance(entry.body, entries.Reigned):
            self._group(messages.GroupFormed())

    patch.setattr(RegistryMachine, "_reigns", mutant)


# --- reads, answers, watches ------------------------------------------------------------------------------------------


def read_without_asking(patch: Patch) -> None:
    """A primary reads without asking whether it still is one."""
    patch.setattr(ExactReads, "add", lambda self, now, reign, waiter, read: read())


def answer_a_past_reign(patch: Patch) -> None:
    """A message of an old epoch is refused like one that does not fit: with its round, in the epoch of now."""
    real = Raft._append

    def mutant(self: Raft, now: float, source: int, message: peers.Append) -> None:
        if message.epoch < self.promised:
            self._refuse(source, message.round)
        else:
            real(self, now, source, message)

    _handled(patch, peers.Append, mutant)


def join_the_round_under_way(patch: Patch) -> None:
    """A read is exact when the round is answered that began before it came."""
    real = Reign.read_round

    def mutant(self: Reign, now: float) -> int:
        return self.round if self.confirmed < self.round else real(self, now)

    patch.setattr(Reign, "read_round", mutant)


def remember_no_answers(patch: Patch) -> None:
    """A retry is done again."""
    patch.setattr(Store, "answered", lambda self, request: None)


def snapshot_without_answers(patch: Patch) -> None:
    """A snapshot does not hold the answers to request ids."""
    real = Store.image
    patch.setattr(Store, "image", lambda self: msgspec.structs.replace(real(self), requests=[]))


def forget_that_answers_were_forgotten(patch: Patch) -> None:
    """A retry whose answer is no longer known is done again."""
    real = Store._remember

    def mutant(self: Store, request: str, answer: Any) -> Any:
        found = real(self, request, answer)
        self.forgotten = 0
        return found

    patch.setattr(Store, "_remember", mutant)


def skip_a_revision(patch: Patch) -> None:
    """A watcher that comes to another primary misses the revision at which it goes on."""
    real = RegistryMachine._watch

    def mutant(self: RegistryMachine, question: messages.Watch, waiter: Any) -> None:
        later = question.from_revision + (self.epoch > 2 and question.from_revision > 0)
        real(self, msgspec.structs.replace(question, from_revision=later), waiter)

    _asked(patch, messages.Watch, mutant)


# --- servers and copies -----------------------------------------------------------------------------------------------


def count_who_was_before(patch: Patch) -> None:
    """The servers that an entry names are in force when it is committed, not when it is appended."""

    def mutant(self: Log) -> Any:
        return next(servers for index, servers in reversed(self._servers) if index <= max(self.committed, 0))

    patch.setattr(Log, "servers", property(mutant))


def change_two_at_once(patch: Patch) -> None:
    """A change of the servers is taken while another is under way."""

    def mutant(raft: Raft, store: Store, question: messages.ChangeServers, now: float) -> Any:
        return membership.changed(raft.log.servers, question.change, question.server)

    patch.setattr(membership, "wanted", mutant)


def change_before_the_reign_is_settled(patch: Patch) -> None:
    """A change of the servers is taken before an entry of the own epoch is committed."""
    real = RegistryMachine._change

    def mutant(self: RegistryMachine, question: messages.ChangeServers, waiter: Any) -> None:
        self.__dict__["_must_lead"] = lambda: None
        try:
            real(self, question, waiter)
        finally:
            del self.__dict__["_must_lead"]

    _asked(patch, messages.ChangeServers, mutant)


def count_learners(patch: Patch) -> None:
    """A learner's copy counts as a voter's would."""

    def mutant(self: Reign, of: Any, own: int) -> int:
        servers = self._raft.log.servers
        found = [own, *(of(progress) for progress in self.others.values() if not progress.ill)]
        return int(sorted(found, reverse=True)[min(membership.majority(servers), len(found)) - 1])

    patch.setattr(Reign, "_counted", mutant)


def damaged_copies_vote(patch: Patch) -> None:
    """A copy that is not sound votes, and promises to."""
    real = Raft.receive

    def mutant(self: Raft, now: float, source: int, message: Any) -> None:
        if self.state is State.DAMAGED and isinstance(message, peers.VoteAsked | peers.PreVoteAsked):
            self._handlers[type(message)](self, now, source, message)
        else:
            real(self, now, source, message)

    patch.setattr(Raft, "receive", mutant)


def believe_earlier_lives(patch: Patch) -> None:
    """What a copy acknowledged before it was damaged still counts."""

    def mutant(self: Progress, life: int, round: int, newest: int) -> bool:
        self.life, self.round = life, max(self.round, round)
        return True

    patch.setattr(Progress, "believe", mutant)


def fill_before_the_note(patch: Patch) -> None:
    """A damaged copy is filled with any state, also one that does not hold the note of its damage."""
    real = Reign._fill

    def mutant(self: Reign, now: float, number: int, progress: Progress) -> None:
        progress.noted = progress.noted or self._raft.log.committed
        real(self, now, number, progress)

    patch.setattr(Reign, "_fill", mutant)


def _handled(patch: Patch, kind: Any, mutant: Any) -> None:
    patch.setitem(Raft._handlers, kind, mutant)


def _asked(patch: Patch, kind: type[Any], mutant: Any) -> None:
    questions: dict[type[Any], Any] = RegistryMachine._questions
    patch.setitem(questions, kind, mutant)


MISTAKES: tuple[Plant, ...] = (
    say_before_the_sync,
    acknowledge_what_was_only_heard,
    count_the_own_copy_unsynced,
    forget_the_vote,
    write_no_cut,
    acknowledge_a_snapshot_unsynced,
    forget_what_is_committed,
    vote_for_any_log,
    vote_twice,
    count_votes_of_any_epoch,
    half_is_a_majority,
    stand_without_asking_first,
    wait_equally_long,
    lead_without_a_majority,
    learners_keep_their_vote,
    hear_a_lower_generation,
    take_over_when_told_long_ago,
    hand_over_at_once,
    count_copies_of_old_epochs,
    commit_what_does_not_match,
    end_the_log_at_each_message,
    begin_without_an_entry,
    keep_old_proposals,
    write_without_the_group,
    read_without_asking,
    answer_a_past_reign,
    join_the_round_under_way,
    remember_no_answers,
    snapshot_without_answers,
    forget_that_answers_were_forgotten,
    skip_a_revision,
    count_who_was_before,
    change_two_at_once,
    change_before_the_reign_is_settled,
    count_learners,
    damaged_copies_vote,
    believe_earlier_lives,
    fill_before_the_note,
)

"""What must hold at every step of a simulated registry, over all its servers; each failure names its invariant.

The numbers are those of the README of the registry. The guard believes disks, orders and messages; of a machine it asks
only whether it leads, how far its log is committed, and what its state's hash and revision are. It keeps a copy of what
each server ordered (`ordered`) beside what its disk holds (`disks`), and does little for each step: what was looked at
once is not looked at again.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from covey.bus.machine import Effect, Notify, Persist, Reply, Send
from covey.components.registry import entries, messages, peers, records
from covey.components.registry.states import State
from covey.errors import CoveyError, NotPrimary
from registry_copy import Copy, CopyDisk
from registry_truth import Truth


class Guard:
    """Watches every step. `seen` counts what happened, for reports and for tests that ask whether it ever did."""

    def __init__(self, truth: Truth, questions: dict[int, Any]) -> None:
        self.truth = truth
        self.questions = questions  # by number of the request
        self.seen: Counter[str] = Counter()
        self.disks: dict[int, CopyDisk] = {}
        self.ordered: dict[int, Copy] = {}
        self.leaders: dict[tuple[int, int], int] = {}
        self.reigns: list[tuple[int, int]] = []  # epoch, node
        self._entries: dict[bytes, tuple[bytes, bytes]] = {}  # digest -> digest before, record
        self._places: dict[tuple[int, int, int], bytes] = {}  # generation, epoch, index -> digest
        self._holders: dict[bytes, set[int]] = {}  # digest -> servers that ever had it on their disk
        self._states: dict[int, tuple[int, int]] = {}  # index -> state hash, revision
        self._commits: list[tuple[int, int]] = []  # rising: epoch in which an index was first seen committed, index
        self._committed: dict[int, int] = {}
        self._leads: dict[int, int] = {}  # node -> epoch in which it leads
        self._damaged: dict[int, bool] = {}

    # --- lives of servers ---

    def add(self, node: int, disk: CopyDisk) -> None:
        """Know a server's disk."""
        self.disks[node] = disk
        disk.heard = lambda data, kind: self._durable(node, data, kind)

    def born(self, node: int) -> None:
        """A server starts from what its disk holds."""
        self.ordered[node] = self.disks[node].copy.clone()
        self._committed.pop(node, None)
        self._leads.pop(node, None)
        self._damaged.pop(node, None)

    def _durable(self, node: int, data: bytes, kind: int) -> None:
        if kind < records.SEGMENT:
            self._holders.setdefault(data[-records.DIGEST_BYTES :], set()).add(node)
        elif kind == records.SNAPSHOT:
            self._holders.setdefault(self.disks[node].copy.base_chain, set()).add(node)

    # --- a step ---

    def step(self, node: int, machine: Any, input: Any, effects: list[Effect]) -> None:
        """Look at what one input led to."""
        raft = machine.raft
        if isinstance(input, messages.NoRoom):
            self._refused(node, machine)
        for effect in effects:
            if isinstance(effect, Persist):
                self._ordered(node, machine, effect)
        if raft.leads:
            if self._leads.get(node) != raft.promised:
                self._new_reign(node, machine)
        elif self._leads.pop(node, 0):
            self.seen["reigns ended"] += 1
        if raft.log.committed != self._committed.get(node):
            self._advanced(node, machine)
        for effect in effects:
            if isinstance(effect, Send):
                if (check := self._sends.get(type(effect.message))) is not None:
                    check(self, node, machine, effect.to.node, effect.message)
            elif isinstance(effect, Reply):
                self._replied(effect)
            elif isinstance(effect, Notify):
                self.seen[f"notified {effect.what}"] += 1

    # --- orders ---

    def _refused(self, node: int, machine: Any) -> None:
        """Nothing of what was under way was written. A server without any other may use its indexes again."""
        ordered, held = self.ordered[node], self.disks[node].copy
        if len(ordered.in_force.voters) == 1 and not ordered.in_force.learners:
            for at, (epoch, _, _) in enumerate(ordered.log, ordered.base + 1):
                if at > held.last:
                    self._places.pop((ordered.gen, epoch, at), None)
        self.ordered[node] = held.clone()
        self.seen["full disks"] += 1

    def _ordered(self, node: int, machine: Any, effect: Persist) -> None:
        copy = self.ordered[node]
        for data in effect.data:
            before, was_damaged = copy.last, copy.damaged
            kind = copy.take(data)
            if kind < records.SEGMENT:
                self._appended(node, machine, copy, data, kind)
            elif kind == records.CUT and copy.last < before:
                self.seen["logs cut"] += 1
                assert not machine.raft.leads or self._leads.get(node) != machine.raft.promised, (
                    f"INV-2: primary {node} cut its own log at {copy.last}"
                )
            elif kind == records.SNAPSHOT:
                self.seen["copies refilled" if was_damaged else "snapshots installed"] += 1
                assert copy.gen == self.truth.gen, f"INV-17: {node} took a snapshot of generation {copy.gen}"
                chain = self.truth.digest(copy.base)
                assert chain == copy.base_chain, f"INV-5: {node} took a snapshot at {copy.base} that is not the truth's"

    def _appended(self, node: int, machine: Any, copy: Copy, data: bytes, kind: int) -> None:
        epoch, digest, _ = copy.log[-1]
        place = (copy.gen, epoch, copy.last)
        known = self._places.setdefault(place, digest)
        assert known == digest, f"INV-3: two entries {epoch}.{copy.last}, one of them in the log of {node}"
        if digest not in self._entries:
            self._entries[digest] = (copy.log[-2][1] if len(copy.log) > 1 else copy.base_chain, data)
        if kind == entries.CONFIGURED and machine.raft.leads and epoch == machine.raft.promised:
            (at, old), (_, new) = copy.servers[-2], copy.servers[-1]
            assert at <= self.truth.last, f"INV-16: {node} changes the servers while the change at {at} is under way"
            assert len({*old.voters} ^ {*new.voters}) <= 1, f"INV-16: {node} changes more than one voter: {old}, {new}"
            assert self.truth.epoch(self.truth.last) >= epoch, f"INV-16: {node} changes servers before its reign began"
            self.seen["changes of servers"] += 1
            if set(new.voters) & set(old.learners):
                self.seen["learners made voters"] += 1
        elif kind == entries.KINDS[entries.Noted]:
            self.seen["damage noted"] += 1

    # --- reigns and commits ---

    def _new_reign(self, node: int, machine: Any) -> None:
        """INV-1: one primary an epoch. INV-4: it has everything that was committed in epochs before."""
        raft = machine.raft
        epoch, copy = raft.promised, self.ordered[node]
        self._leads[node] = epoch
        other = self.leaders.setdefault((raft.gen, epoch), node)
        assert other == node, f"INV-1: {other} and {node} both lead in epoch {epoch} of generation {raft.gen}"
        assert raft.gen == self.truth.gen, f"INV-17: {node} leads in generation {raft.gen}"
        self.seen["reigns"] += 1
        if self.reigns and self.reigns[-1][1] != node:
            self.seen["changes of primary"] += 1
        self.reigns.append((epoch, node))
        index = max((index for at, index in self._commits if at < epoch), default=self.truth.first)
        assert copy.last >= index, f"INV-4: {node} leads in epoch {epoch} and lacks entry {index}, which was committed"
        if (held := copy.digest(index)) is not None:
            assert held == self.truth.digest(index), f"INV-4: {node} leads in epoch {epoch} with another entry {index}"

    def _advanced(self, node: int, machine: Any) -> None:
        """INV-5, INV-9: what is committed is the same everywhere, and on the disks of a majority. INV-6: for good."""
        raft, store, truth = machine.raft, machine.store, self.truth
        index, before = raft.log.committed, self._committed.get(node)
        if raft.gen != truth.gen or not index:
            assert raft.state is State.DAMAGED or before is None or index == before, f"INV-17: {node} commits {index}"
            self._committed[node] = index
            return
        damaged = raft.state is State.DAMAGED
        assert damaged or before is None or index > before, f"INV-6: {node} went back to {index} from {before}"
        self._committed[node] = index
        place = raft.log.place(index)
        assert place is not None, f"{node} lost the place of entry {index}"
        if index > truth.last:
            self._new_truth(node, machine, index, place.chain)
        assert truth.digest(index) == place.chain, f"INV-5: {node} committed another entry {index}"
        state = (store.state_hash, store.revision)
        assert self._states.setdefault(index, state) == state, f"INV-5: {node} has another state at {index}"
        assert store.revision == truth.revision(index), f"INV-5: {node} counts revision {store.revision} at {index}"

    def _new_truth(self, node: int, machine: Any, index: int, chain: bytes) -> None:
        truth, raft = self.truth, machine.raft
        rows: list[bytes] = []
        at = chain
        while len(rows) < index - truth.last:
            assert at in self._entries, f"INV-9: {node} commits {index}, and nobody ordered it to be written"
            at, data = self._entries[at]
            rows.append(data)
        assert at == truth.digests[-1], f"INV-5: {node} commits {index} behind another entry {truth.last}"
        voters = raft.log.servers.voters
        holders = self._holders.get(chain, set()) & set(voters)
        assert len(holders) > len(voters) // 2, f"INV-9: {node} commits {index}, which only {holders} of {voters} hold"
        if node not in holders:
            self.seen["committed without the primary's disk"] += 1
        for data in reversed(rows):
            truth.add(data)
        epoch = raft.promised
        assert not self._commits or epoch >= self._commits[-1][0] or not raft.leads, (
            f"INV-1: {node} commits {index} in epoch {epoch}, {self._commits[-1][0]} did before"
        )
        self._commits.append((max(epoch, self._commits[-1][0] if self._commits else 0), index))
        if len(self._commits) > 1 and self._commits[-2][0] == self._commits[-1][0]:
            del self._commits[-2]

    # --- messages ---

    def _sound(self, node: int, machine: Any, what: str) -> None:
        bad = self.disks[node].damage or machine.raft.state is State.DAMAGED
        assert not bad, f"INV-8: {node} has no sound copy and {what}"

    def _vote_given(self, node: int, machine: Any, to: int, message: peers.VoteGiven) -> None:
        if not message.granted:
            self.seen["votes refused"] += 1
            return
        self.seen["votes given"] += 1
        self._sound(node, machine, f"votes for {to}")
        held = self.disks[node].copy.votes.get(message.epoch)
        assert held == to, f"INV-7: {node} votes for {to} in epoch {message.epoch}, its disk says {held}"

    def _pre_vote_given(self, node: int, machine: Any, to: int, message: peers.PreVoteGiven) -> None:
        self.seen["pre-votes given" if message.granted else "pre-votes refused"] += 1
        if message.granted:
            self._sound(node, machine, f"would vote for {to}")

    def _vote_asked(self, node: int, machine: Any, to: int, message: peers.VoteAsked) -> None:
        self._sound(node, machine, "stands for election")
        held = self.disks[node].copy.votes.get(message.epoch)
        assert held == node, f"INV-7: {node} stands in epoch {message.epoch}, its disk has a vote for {held}"
        if message.handed:
            self.seen["hand-overs taken"] += 1

    def _pre_vote_asked(self, node: int, machine: Any, to: int, message: peers.PreVoteAsked) -> None:
        self._sound(node, machine, "canvasses")

    def _append(self, node: int, machine: Any, to: int, message: peers.Append) -> None:
        leader = self.leaders.get((message.gen, message.epoch))
        assert leader == node, f"INV-1: {node} sends entries of epoch {message.epoch}, in which {leader} leads"

    def _accepted(self, node: int, machine: Any, to: int, message: peers.Appended) -> None:
        if not message.fits:
            self.seen["entries that did not fit"] += 1
            return
        self._sound(node, machine, f"has entry {message.match}")
        held, ordered = self.disks[node].copy, self.ordered[node]
        assert held.last >= message.match, f"INV-7: {node} acknowledges {message.match}, its disk ends at {held.last}"
        if message.match > max(held.base, ordered.base):
            same = held.digest(message.match) == ordered.digest(message.match)
            assert same, f"INV-7: {node} acknowledges {message.match}, its disk has another entry there"

    def _take_over(self, node: int, machine: Any, to: int, message: peers.TakeOver) -> None:
        self.seen["hand-overs"] += 1

    _sends: dict[type[Any], Any] = {
        peers.VoteGiven: _vote_given,
        peers.PreVoteGiven: _pre_vote_given,
        peers.VoteAsked: _vote_asked,
        peers.PreVoteAsked: _pre_vote_asked,
        peers.Append: _append,
        peers.Appended: _accepted,
        peers.TakeOver: _take_over,
    }

    # --- answers ---

    def _replied(self, effect: Reply) -> None:
        """INV-7, INV-9, INV-14: what is answered is committed, and the answer is the one it came to."""
        question, result = self.questions.get(effect.request), effect.result
        if isinstance(result, CoveyError):
            self.seen[f"answered {result.code}"] += 1
            if isinstance(result, NotPrimary):
                if result.details.get("in_doubt"):
                    self.seen["writes in doubt"] += 1
                elif isinstance(question, messages.Get | messages.List) and question.consistency == "linear":
                    self.seen["reads turned away"] += 1
            return
        if isinstance(question, messages.Transact):
            known = self.truth.ids.get(question.id)
            assert known is not None, f"INV-7: {question.id} was answered and is not committed"
            assert (result["revision"], result["succeeded"]) == known[:2], (
                f"INV-14: {question.id}: {result}, not {known}"
            )
        elif isinstance(question, messages.AppendSystem):
            known = self.truth.ids.get(question.id)
            assert known is not None, f"INV-7: {question.id} was answered and is not committed"
            assert (result["index"], result["epoch"]) == known[2:], f"INV-14: {question.id}: {result}, not {known}"
            assert result["epoch"] == question.epoch, f"an entry of epoch {question.epoch} stands in {result['epoch']}"

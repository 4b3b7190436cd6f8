"""The end of the core log that is on its way: entries proposed, ordered to the disk, not yet durable. Pure.

Knows the chain of digests and the order of things, not what an entry does. One server is a majority of one: what is
durable here is committed. With several servers, this is where entries go to the others and where a majority of them
is counted (SPEC 9.5, not built yet); what stands before and behind it stays.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ...bus.machine import Address, Persist
from . import entries, records


class Waiter(NamedTuple):
    """Who waits for an entry: a question by number, or a machine by address."""

    request: int | None
    source: Address | None
    cause: str


class Proposal(NamedTuple):
    """An entry on its way to the disk."""

    entry: entries.Entry
    digest: bytes
    size: int
    waiters: list[Waiter]

    @property
    def id(self) -> str:
        """The request id it carries, if any."""
        return getattr(self.entry.body, "id", "")


class CoreLog:
    """Entries behind the committed ones. Invariants: indexes without a gap; one `Persist` an entry; ids are unique."""

    def __init__(self, last: int, chain: bytes) -> None:
        self.last = last  # index of the newest entry, durable or not
        self.committed = last
        self.committed_chain = chain
        self.bytes = 0
        self._chain = chain
        self._waiting: deque[Proposal] = deque()
        self._by_id: dict[str, Proposal] = {}
        self._ordered: deque[tuple[int, int]] = deque()  # (number of the Persist, index of its entry)
        self._number = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def under_way(self, request: str) -> Proposal | None:
        """Return the proposal with a request id, if it is not durable yet."""
        return self._by_id.get(request)

    def propose(
        self, epoch: int, time: int, body: entries.Body, waiters: list[Waiter], before: tuple[bytes, ...] = ()
    ) -> Persist:
        """Append an entry; return the order to make it durable, after the records `before`."""
        entry = entries.Entry(epoch, self.last + 1, time, body)
        record = entries.encode(entry, self._chain)
        proposal = Proposal(entry, records.digest(record), len(record), waiters)
        self._chain, self.last = proposal.digest, entry.index
        self._waiting.append(proposal)
        self.bytes += proposal.size
        if proposal.id:
            self._by_id[proposal.id] = proposal
        self._number += 1
        self._ordered.append((self._number, entry.index))
        return Persist(self._number, [*before, record], waiters[0].cause if waiters else "")

    def persisted(self, number: int) -> list[Proposal]:
        """Take it that everything up to `Persist(number)` is durable; return the entries that are committed by that.

        Raises ValueError for a number that was never ordered; one that was heard before changes nothing.
        """
        if number > self._number:
            raise ValueError(f"Persisted({number}) came, and only {self._number} were ordered")
        while self._ordered and self._ordered[0][0] <= number:
            self.committed = self._ordered.popleft()[1]
        found: list[Proposal] = []
        while self._waiting and self._waiting[0].entry.index <= self.committed:
            proposal = self._waiting.popleft()
            self.bytes -= proposal.size
            self._by_id.pop(proposal.id, None)
            self.committed_chain = proposal.digest
            found.append(proposal)
        return found

    def discard(self) -> list[Proposal]:
        """Take back all that is not durable: it was not written and never will be. Return it, in order."""
        found = list(self._waiting)
        self._waiting.clear()
        self._by_id.clear()
        self._ordered.clear()
        self.bytes = 0
        self.last, self._chain = self.committed, self.committed_chain
        return found

    def check(self, opened: int, answered: set[str]) -> None:
        """Raise AssertionError: 13, 14 and 32 of the machine's invariants, as far as they concern entries under way.

        `opened` is the index of the entry that opened writes in this epoch (0: none did), `answered` the request
        ids among those under way whose answer is known.
        """
        indexes = [proposal.entry.index for proposal in self._waiting]
        assert indexes == list(range(self.committed + 1, self.last + 1)), "5: the log's end has a gap"
        for proposal in self._waiting:
            body = proposal.entry.body
            if isinstance(body, entries.Transacted) and not body.system:
                assert 0 < opened < proposal.entry.index, "13: a user's entry while writes are closed"
        ids = [proposal.id for proposal in self._waiting if proposal.id]
        assert sorted(ids) == sorted(self._by_id), "14: a request id is under way twice"
        assert not answered, "14: a request id is applied again"
        assert self.bytes == sum(proposal.size for proposal in self._waiting), "32: proposals are counted wrong"

    def ids(self) -> list[str]:
        """Return the request ids under way."""
        return list(self._by_id)

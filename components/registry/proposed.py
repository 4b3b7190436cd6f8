"""What this primary proposed and is not committed yet: who waits for it, and which request ids are under way. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...bus.machine import Address
from ...errors import RequestExpired
from . import entries, membership
from .store import Answer


class Waiter(NamedTuple):
    """Who waits for an answer: a question by number, or a machine by address."""

    request: int | None
    source: Address | None
    cause: str


class Proposal(NamedTuple):
    """An entry under way."""

    entry: entries.Entry
    size: int
    waiters: list[Waiter]

    @property
    def id(self) -> str:
        """The request id it carries, if any."""
        return getattr(self.entry.body, "id", "")


class Proposed:
    """Proposals by index. Invariant: a request id is under way once."""

    def __init__(self) -> None:
        self.bytes = 0
        self._by_index: dict[int, Proposal] = {}
        self._by_id: dict[str, Proposal] = {}

    def __len__(self) -> int:
        return len(self._by_index)

    def add(self, proposal: Proposal) -> None:
        """Remember a proposal."""
        self._by_index[proposal.entry.index] = proposal
        self.bytes += proposal.size
        if proposal.id:
            self._by_id[proposal.id] = proposal

    def under_way(self, request: str) -> Proposal | None:
        """Return the proposal with a request id, if it is not committed yet."""
        return self._by_id.get(request)

    def take(self, index: int) -> Proposal | None:
        """Return and forget the proposal at an index that was committed."""
        proposal = self._by_index.pop(index, None)
        if proposal:
            self.bytes -= proposal.size
            self._by_id.pop(proposal.id, None)
        return proposal

    def clear(self) -> list[Proposal]:
        """Forget all; return them, in order."""
        found = list(self._by_index.values())
        self._by_index.clear()
        self._by_id.clear()
        self.bytes = 0
        return found

    def check(self, opened: int, answered: set[str]) -> None:
        """Raise AssertionError: 13, 14 and 32 of the machine's invariants, as far as they concern entries under way.

        `opened` is the index of the entry that opened writes in this epoch (0: none did), `answered` the request
        ids among those under way whose answer is known.
        """
        for proposal in self._by_index.values():
            body = proposal.entry.body
            if isinstance(body, entries.Transacted) and not body.system:
                assert 0 < opened < proposal.entry.index, "13: a user's entry while writes are closed"
        ids = [proposal.id for proposal in self._by_index.values() if proposal.id]
        assert sorted(ids) == sorted(self._by_id), "14: a request id is under way twice"
        assert not answered, "14: a request id is applied again"
        assert self.bytes == sum(proposal.size for proposal in self._by_index.values()), "32: counted wrong"

    def ids(self) -> list[str]:
        """Return the request ids under way."""
        return list(self._by_id)


def result_of(body: entries.Body, answer: Answer) -> Any:
    """Return what whoever asked for an entry hears of it, once it was applied."""
    if answer.expired:
        return RequestExpired(
            "this write was tried before, so long ago that nobody remembers whether it was done",
            "read what it should have changed, then decide",
        )
    if isinstance(body, entries.Committed):
        return {"index": answer.index, "epoch": answer.epoch}
    if isinstance(body, entries.Configured):
        return {"index": answer.index, **membership.plain(body)}
    return {"revision": answer.revision, "succeeded": answer.succeeded}

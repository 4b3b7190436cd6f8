"""What a primary knows of one other server, within one reign. Pure data, and the few rules that belong to it.

`life` tells an answer of before a crash from one of after it. A copy that says it is damaged (`Refill`) counts for
nothing until an answer of the same or a later life says that it holds what we filled it with; an answer that was under
way since before is of another life and of an old round, and is not believed (protocols: what the lost copy had
acknowledged must not be counted).
"""

from __future__ import annotations

import msgspec


class Fill(msgspec.Struct):
    """A snapshot on its way: the record's bytes, and how many of them the other has."""

    index: int
    data: bytes
    offset: int = 0
    quiet: int = 0  # heartbeats since the last answer


class Progress(msgspec.Struct):
    """One other server, as the primary sees it."""

    next: int  # index of the first entry to send
    match: int = 0  # its copy is the same as ours, durably, up to here
    probing: bool = True  # where its log fits is not known: one message at a time
    flights: int = 0  # messages with entries that are not answered
    quiet: int = 0  # heartbeats since the last answer to one of them
    heard_at: float = float("-inf")
    round: int = 0  # the newest round that it answered
    life: int = 0
    life_round: int = 0  # rounds up to this one may be answered by an earlier life
    ill: bool = False  # it has no sound copy
    noted: int = 0  # index of the entry that notes this; no older state refills it
    fill: Fill | None = None

    def believe(self, life: int, round: int, newest: int) -> bool:
        """Take an answer's `life` and `round`; False: it is of an earlier life. `newest` is our newest round."""
        if life != self.life:
            if self.life and round <= self.life_round:
                return False
            self.life, self.life_round = life, newest
            self.fill = None
        self.round = max(self.round, round)
        return True

    def fell_ill(self, life: int, round: int, newest: int) -> bool:
        """It says that it has no sound copy; False when this is known, or old."""
        if life == self.life or (self.life and round <= self.life_round):
            return False
        self.life, self.life_round, self.ill = life, newest, True
        self.match, self.noted, self.fill, self.flights, self.probing = 0, 0, None, 0, True
        return True

    def fits(self, match: int) -> None:
        """Its copy is the same as ours up to `match`."""
        self.match = max(self.match, match)
        if self.probing and self.flights and match < self.next - 1:
            return  # the answer to something older than what was sent to find out
        self.next = max(self.next, self.match + 1)
        self.probing, self.quiet = False, 0
        self.flights = max(self.flights - 1, 0)

    def unfit(self, index: int) -> None:
        """It could not take what we sent, and says that `index` fits. One question is sent for however many of these
        answers: many come when one of several messages was lost or overtaken."""
        if not (self.probing and self.flights and self.next == max(index, self.match) + 1):
            self.back(index)

    def back(self, index: int) -> None:
        """Its copy does not go on from where we sent: go on behind `index`."""
        self.next = max(index, self.match) + 1
        self.probing, self.flights, self.quiet = True, 0, 0

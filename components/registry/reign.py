"""One reign of this server as primary: the log on its way to the others, and when an entry is committed. Pure.

Made when the server is elected, dropped when it steps down; `raft.py` owns it and routes the others' answers here. An
entry is committed when a majority of the voters holds it durably and it is of this epoch (thesis 3.6.2); the primary's
own copy counts once its own disk has it. A *round* is a broadcast: answered by a majority, it proves that nobody else
led when it began, which is what an exact read waits for (ReadIndex, thesis 6.4; no leases).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from . import entries, membership, peers, records
from .progress import Fill, Progress
from .states import EXACT

if TYPE_CHECKING:
    from .raft import Raft

FLIGHTS = 2
"""Messages with entries under way to one server: one that travels and one that is synced; more entries gather."""

PATIENCE = 3
"""Heartbeats without an answer after which entries or a part of a snapshot are sent again."""


class Handing(msgspec.Struct, frozen=True):
    """A hand-over under way: to whom, and until when."""

    to: int
    until: float


class Reign:
    """What a primary knows beyond what every server knows."""

    def __init__(self, raft: Raft, now: float) -> None:
        self._raft = raft
        self.epoch = raft.promised
        self.round = 0
        self.confirmed = 0  # the newest round that a majority answered
        self.handing: Handing | None = None
        self.wants_round = False  # reads of this turn of the loop wait for a round
        self.others: dict[int, Progress] = {}
        assert raft.keeper is not None
        self._time = raft.keeper.log_time()
        self._start = now
        self._beat_at = now
        self.servers_changed(now)

    @property
    def deadline(self) -> float | None:
        """When `tick` must be called next; never, when there is no other server."""
        if not self.others:
            return None
        return min(self._beat_at, self.handing.until) if self.handing else self._beat_at

    def time(self, now: float) -> int:
        """Return the log time: it goes on from the newest entry's, and stands still while nobody leads."""
        return self._time + max(int((now - self._start) * 1000), 0)

    def tick(self, now: float) -> None:
        """Beat: look whether a majority answers, send again what was lost."""
        if self.handing and now >= self.handing.until:
            self.handing = None
        if now < self._beat_at:
            return
        self._beat_at = now + self._raft.settings.beat
        for progress in self.others.values():
            progress.quiet += 1
            if progress.flights and progress.quiet >= PATIENCE:
                progress.back(progress.match)
            if progress.fill:
                progress.fill.quiet += 1
        if not self._check_majority(now):
            return
        self.broadcast(now)

    def servers_changed(self, now: float) -> None:
        """Other servers are in force: know all of them, and no more."""
        log = self._raft.log
        wanted = [number for number in membership.all_of(log.servers) if number != self._raft.node]
        last = log.last
        self.others = {
            number: self.others.get(number) or Progress(next=last + 1, heard_at=now) for number in sorted(wanted)
        }

    # --- who answers ---

    def healthy(self, now: float) -> set[int]:
        """Return the servers that answered lately and have a sound copy, this one included."""
        since = now - self._raft.settings.election_high
        found = {number for number, one in self.others.items() if one.heard_at > since and not one.ill}
        return {self._raft.node, *found}

    def _check_majority(self, now: float) -> bool:
        """Step down when a majority does not answer any more (CheckQuorum, thesis 6.2)."""
        servers = self._raft.log.servers
        removed = self._raft.node not in servers.voters and self._raft.log.servers_index <= self._raft.log.committed
        if removed or len(self.healthy(now) & set(servers.voters)) < membership.majority(servers):
            self._raft.step_down(now)
            return False
        return True

    def peer_down(self, now: float, node: int) -> None:
        """The link to a node closed."""
        if progress := self.others.get(node):
            progress.heard_at = float("-inf")
            progress.back(progress.match)
            self._check_majority(now)

    def _counted(self, of: Any, own: int) -> int:
        """Return the highest number that a majority of the voters has reached."""
        raft = self._raft
        found = sorted(
            own if number == raft.node else of(self.others[number]) if not self.others[number].ill else 0
            for number in raft.log.servers.voters
        )
        return int(found[len(found) - membership.majority(raft.log.servers)])

    # --- sending ---

    def broadcast(self, now: float) -> None:
        """Begin a round: say to every other server that this one leads, with what it lacks."""
        self.round += 1
        for number, progress in self.others.items():
            self._pump(now, number, progress, True)
        self._count_round()

    def pump_all(self, now: float) -> None:
        """Send new entries to all that can take some."""
        for number, progress in self.others.items():
            self._pump(now, number, progress, False)

    def _pump(self, now: float, number: int, progress: Progress, beat: bool) -> None:
        log = self._raft.log
        if progress.ill or progress.next <= log.base.index:
            if beat:
                self._say_append(number, log.last, ())
            self._fill(now, number, progress)
            return
        most = 1 if progress.probing else FLIGHTS
        sent = False
        while progress.next <= log.last and progress.flights < most:
            data = log.data(progress.next, self._raft.settings.append_bytes)
            self._say_append(number, progress.next - 1, data)
            progress.flights += 1
            sent = True
            if progress.probing:
                break
            progress.next += len(data)
        if beat and not sent:
            self._say_append(number, progress.next - 1, ())

    def _say_append(self, number: int, previous: int, data: tuple[bytes, ...]) -> None:
        raft = self._raft
        place = raft.log.place(previous)
        assert place is not None
        phase, writable = raft.told
        raft.say(
            number,
            peers.Append(
                raft.gen, self.epoch, self.round, previous, place.chain, raft.log.committed, data, phase, writable
            ),
        )

    # --- answers ---

    def appended(self, now: float, source: int, message: peers.Appended) -> None:
        """A server took entries, or a heartbeat, or the last part of a snapshot; or could not."""
        progress = self._answered(now, source, message)
        if progress is None:
            return
        log = self._raft.log
        if message.fits:
            progress.ill = False
            progress.fits(message.match)
            if progress.fill and message.match >= progress.fill.index:
                progress.fill = None
        else:
            place = log.place(message.match)
            fits = place is not None and place.chain == message.chain
            progress.ill = False
            if not progress.fill:
                progress.unfit(message.match if fits else message.committed)
        self._count_round()
        self.advance(now)
        if self._raft.reign is self:
            self._promote(now, source, progress)
            self._pump(now, source, progress, False)
            self._hand_over_if_level()

    def _answered(
        self, now: float, source: int, message: peers.Appended | peers.PartTaken | peers.Refill
    ) -> Progress | None:
        """Return the progress of a server whose answer counts."""
        progress = self.others.get(source)
        if progress is None or message.epoch != self.epoch:
            return None
        if not isinstance(message, peers.Refill) and not progress.believe(message.life, message.round, self.round):
            return None
        progress.heard_at = now
        return progress

    def _count_round(self) -> None:
        self.confirmed = max(self.confirmed, self._counted(lambda progress: progress.round, self.round))

    def advance(self, now: float) -> None:
        """Commit what a majority holds."""
        log = self._raft.log
        index = self._counted(lambda progress: progress.match, self._raft.journal.durable)
        place = log.place(index)
        if index > log.committed and place is not None and place.epoch == self.epoch:
            log.commit(index)
            if self._raft.node not in log.servers.voters:
                self._check_majority(now)

    def _promote(self, now: float, number: int, progress: Progress) -> None:
        """Make a learner that is nearly level a voter."""
        log = self._raft.log
        if (
            number in log.servers.learners
            and not progress.ill
            and not progress.probing
            and log.last - progress.match <= self._raft.settings.learner_lag
            and log.servers_index <= log.committed
            and self._raft.state in EXACT
        ):
            self._raft.propose(now, membership.promoted(log.servers, number))

    # --- filling a copy ---

    def refill(self, now: float, source: int, message: peers.Refill) -> None:
        """A server has no sound copy. If it counts, that is noted in the log first, committed without it."""
        progress = self._answered(now, source, message)
        if progress is not None and (
            progress.fell_ill(message.life, message.round, self.round)
            or (progress.ill and progress.life == message.life)
        ):
            self._fill(now, source, progress)

    def _fill(self, now: float, number: int, progress: Progress) -> None:
        raft = self._raft
        if not progress.life or (progress.ill and raft.state not in EXACT):
            return  # a note is an entry of this reign; what is committed may be given to sound copies at any time
        if progress.fill is None:
            if progress.ill and not progress.noted:
                if number not in raft.log.servers.voters:
                    progress.noted = raft.log.committed
                else:
                    progress.noted = raft.log.last + 1
                    raft.propose(now, entries.Noted(number, progress.life))
            if progress.ill and progress.noted > raft.log.committed:
                return
            assert raft.keeper is not None
            data = raft.keeper.snapshot()
            if progress.ill and records.index_of(data) < progress.noted:
                return
            progress.fill = Fill(records.index_of(data), data)
        elif progress.fill.quiet < PATIENCE:
            return
        self._send_part(number, progress, progress.fill)

    def _send_part(self, number: int, progress: Progress, fill: Fill) -> None:
        raft = self._raft
        fill.quiet = 0
        data = fill.data[fill.offset : fill.offset + raft.settings.part_bytes]
        size = len(fill.data)
        raft.say(
            number,
            peers.Part(raft.gen, self.epoch, progress.life, self.round, fill.index, size, fill.offset, data),
        )

    def part_taken(self, now: float, source: int, message: peers.PartTaken) -> None:
        """A server has a part of a snapshot; send the next."""
        progress = self._answered(now, source, message)
        if progress is None or progress.fill is None or progress.fill.index != message.index:
            return
        fill = progress.fill
        if message.offset != fill.offset and message.offset < len(fill.data):
            fill.offset = message.offset
            self._send_part(source, progress, fill)

    # --- reads ---

    def read_round(self, now: float) -> int:
        """Return the round after whose answers an exact read of now may be answered.

        It begins when the loop's turn is over, so the reads of a turn share it (`Raft.pay`). While one is under way the
        next begins when it was answered, so reads that come meanwhile share that.
        """
        if self._raft.alone:
            return self.confirmed
        if self.confirmed < self.round:
            return self.round + 1
        self.wants_round = self._raft.owes = True
        return self.round + 1

    # --- hand-over ---

    def hand_over(self, now: float, to: int) -> int:
        """Begin to hand over to a voter, 0: to the best of them. Return to whom, 0: there is nobody."""
        servers = self._raft.log.servers
        able = {number for number in servers.voters if number not in servers.stopped}
        able &= self.healthy(now) - {self._raft.node}
        able = {number for number in able if to in (0, number)}
        if not able:
            return 0
        best = max(able, key=lambda number: (self.others[number].match, -number))
        self.handing = Handing(best, now + self._raft.settings.hand_over)
        self._hand_over_if_level()
        return best

    def _hand_over_if_level(self) -> None:
        raft = self._raft
        chosen = self.others.get(self.handing.to) if self.handing else None
        if self.handing and chosen and chosen.match == raft.log.last:
            raft.say(self.handing.to, peers.TakeOver(raft.gen, self.epoch))

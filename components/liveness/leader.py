"""The leader's half of liveness: from accusations, joins and leaves to the next view, committed and then announced.

Runs inside the liveness machine of the node whose registry is the primary, for one epoch. Knows the views,
the other nodes' words and its own node's opinions, all handed in; what it wants said is picked up by
`orders`.

    loading  --- the log's views were read --->  leading leading: nothing to change -> gathering (up to
    `batch`, or `hold` while others come under suspicion) -> proposed
             -> appended to the log -> announced

A view is committed when the log has it and never announced before. The id of its entry names epoch and
number, so the log takes one view a number. A process that took over within the same epoch cannot know whether
its predecessor's last proposal is still under way, so each leader reads its first entry back before it
believes that it is its own.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ...bus.machine import Message
from ..registry.messages import AppendSystem, ReadSystem, SystemRead
from .accusations import Accusations
from .backoff import Backoff
from .beats import Beats
from .messages import (
    Alert,
    Configured,
    Heartbeat,
    HeartbeatAck,
    Join,
    JoinDelayed,
    JoinRefused,
    Leave,
    Look,
    Member,
    Removed,
    Step,
    View,
    ViewId,
    ViewsAnnounced,
    Waited,
)
from .peers import Peers
from .relay import FAN_OUT, hearers
from .settings import Settings
from .telling import Teller
from .views import Chain, make, step_to

KIND = "view"
WAITS = "wait/"  # slots of the entries about nodes that wait, one a node; views have the slot without a name


class Joiner:
    """A node that asked to join. `check_until`: its number is in use and the old boot id is being asked till then."""

    def __init__(self, boot_id: str, name: str, now: float) -> None:
        self.boot_id = boot_id
        self.name = name
        self.asked_at = now
        self.view: ViewId = (0, 0)
        self.check_until: float | None = None
        self.probe_at = now
        self.first_beat: int | None = None


class Leader:
    """What the leader of one epoch knows beyond its node's chain of views.

    Invariants: 1. one proposal at a time, and it follows the last view; 2. only members accuse, and only
    members of the last view are accused; 3. nobody joins under a boot id that departed.
    """

    def __init__(self, epoch: int, number: int, chain: Chain, settings: Settings, teller: Teller) -> None:
        self.epoch = epoch
        self.number = number
        self.chain = chain
        self.settings = settings
        self.teller = teller
        self.accusations = Accusations(number, settings)
        self.backoff = Backoff(settings)
        self.state: Literal["loading", "leading"] = "loading"
        self.orders: list[tuple[int, Message]] = []  # (node, message); node 0: this node's registry
        self.joiners: dict[int, Joiner] = {}
        self.configured: set[str] = set()
        self.leaving: set[str] = set()
        self.proposal: View | None = None
        self.ready_since: float | None = None
        self.changed_at: float | None = None  # when the last view was committed, or this leader first looked
        self.look_at = 0.0
        self.repeat_at: float | None = None
        self.reads = 0
        self.certain = False
        self.going: set[int] = set()
        self.ticked_at = 0.0
        self._clock: float | None = None  # the time of day less this machine's
        self._loaded: tuple[list[Step], list[Waited]] = ([], [])

    # --- what others say ----------------------------------------------------------------------------------------

    def hear(self, message: Message, number: int, now: float) -> None:
        """Take what a node wants of the leader, or tells it."""
        if isinstance(message, Join):
            self._join(message, number, now)
        elif isinstance(message, Alert):
            if message.view == self.chain.id and self._is_member(number, message.boot_id):
                self.accusations.hear(message, number, now)
        elif isinstance(message, Configured):
            if self._is_member(number, message.boot_id):
                if any(m.boot_id == message.boot_id and m.state == "pending online" for m in self.chain.members):
                    self.configured.add(message.boot_id)
            elif message.boot_id in self.chain.departed:
                self._say_removed(number, message.boot_id, now)
        elif isinstance(message, Leave):
            joiner = self.joiners.get(number)
            if joiner is not None and joiner.boot_id == message.boot_id:
                del self.joiners[number]
            if self._is_member(number, message.boot_id):
                self.leaving.add(message.boot_id)
            else:
                self._say_removed(number, message.boot_id, now)

    def _join(self, asked: Join, number: int, now: float) -> None:
        """A node wants in. One whose number is in use waits for the old boot id to answer or not (SPEC 5.5)."""
        if asked.boot_id in self.chain.departed:
            self._say_removed(number, asked.boot_id, now)
        elif self._is_member(number, asked.boot_id):
            self._catch_up(number, asked.view, now)
        else:
            joiner = self.joiners.get(number)
            if joiner is None or joiner.boot_id != asked.boot_id:
                joiner = self.joiners[number] = Joiner(asked.boot_id, asked.name, now)
                if self.chain.boot_id(number) and number != self.number:
                    joiner.check_until = now + self.settings.check
            joiner.asked_at, joiner.view = now, asked.view
            wait = self.backoff.until(number) - now
            if wait > 0:
                self.orders.append((number, JoinDelayed(asked.boot_id, round(wait, 3))))

    def beat(self, beat: Heartbeat, number: int, now: float) -> None:
        """A node sent a heartbeat: it may lag, or act as the member that it no longer is."""
        if self._is_member(number, beat.boot_id):
            self._catch_up(number, beat.view, now)
        elif not beat.leads and beat.view <= self.chain.id:
            # it believes in a view that it was in, and we hold a later one that it is not in
            self._say_removed(number, beat.boot_id, now)

    def answered(self, ack: HeartbeatAck, number: int) -> None:
        """A node answered a heartbeat: the one that decides whether a joiner is a clone, perhaps."""
        joiner = self.joiners.get(number)
        if joiner is None or joiner.first_beat is None or ack.beat < joiner.first_beat:
            return
        if ack.boot_id == joiner.boot_id:
            joiner.check_until = None
        elif self._is_member(number, ack.boot_id):
            del self.joiners[number]
            self.orders.append((number, JoinRefused(joiner.boot_id, "clone")))

    def _is_member(self, number: int, boot_id: str) -> bool:
        return self.chain.boot_id(number) == boot_id

    def _say_removed(self, number: int, boot_id: str, now: float) -> None:
        """A boot id that is no member showed itself."""
        waited = self.backoff.ran(number, boot_id, now, 0.0 if self._clock is None else now + self._clock)
        if waited is not None:  # said once: if it is lost, the next leader lets the node in sooner
            body, slot = msgspec.msgpack.encode(waited), f"{WAITS}{number}"
            self.orders.append((0, AppendSystem(f"wait/{self.epoch}/{boot_id}", self.epoch, KIND, slot, body, 1)))
        view = self.chain.departed.get(boot_id, self.chain.id)
        self.orders.append((number, Removed(boot_id, view)))

    def _catch_up(self, number: int, held: ViewId, now: float) -> None:
        """Send a member the views it lacks."""
        told = self.teller.lacking(number, held, now) if number != self.number else None
        if told is not None:
            self.orders.append((number, told))

    # --- the next view ------------------------------------------------------------------------------------------

    def tick(self, now: float, peers: Peers, beats: Beats, boot_id: str, date: float) -> None:
        """Do what is due. `boot_id` is this node's own, `date` the time of day if it is known, else 0."""
        self.ticked_at = now
        self._clock = date - now if date else None
        if self.state == "loading" or self.proposal is not None:
            if self.repeat_at is None or now >= self.repeat_at:
                self._say(now)
            return
        self.changed_at = now if self.changed_at is None else self.changed_at
        self._check_joiners(now, beats, boot_id)
        self.going = {n for n in self.accusations.judge(now, peers) if self.chain.boot_id(n)}
        self._hold_trials(peers, now)
        if not (self.going or self.leaving or self.configured or self._let_in(now)):
            self.ready_since = None
            return
        if self.ready_since is None:
            # what a lone node wishes need not wait for others: none is on its way, or none was just before
            settled = all(m.state == "online" for m in self._planned(self.going, now))
            lone = not self.going and (settled or now >= self.changed_at + self.settings.hold)
            self.ready_since, self.look_at = now, now if lone else now + self.settings.batch
        if now >= self.look_at:
            longest = self.ready_since + self.settings.hold
            if self.going and now < longest and self._unsettled(now, peers):
                self.look_at = min(longest, now + self.settings.batch)
            else:
                members = self._planned(self.going, now)
                self.proposal, self.ready_since = make(self.chain.last, self.epoch, members, date), None
                self._say(now)

    def _hold_trials(self, peers: Peers, now: float) -> None:
        """Those about whom the observers do not agree: all of them look now, and so does the leader."""
        for number in self.accusations.called:
            peers.look(number, self.chain.boot_id(number), self.accusations.networks_of(number), now)
            for observer in self.accusations.observers_of(number):
                if observer != self.number:
                    self.orders.append((observer, Look(self.chain.id, number)))
        for number in self.accusations.released:
            peers.look_no_more(number)

    def _unsettled(self, now: float, peers: Peers) -> bool:
        """Somebody else came under suspicion just now and may belong into the same view."""
        young = now - self.settings.hold
        if any(at > young for n, at in self.accusations.since.items() if n not in self.going):
            return True
        troubled = {p.number: p.since for p in peers if p.opinion != "alive" and p.number not in self.going}
        return any(at > young for at in troubled.values())

    def _planned(self, going: set[int], now: float) -> tuple[Member, ...]:
        planned = {m.number: m for m in self.chain.members if m.number not in going}
        for number, member in list(planned.items()):
            if member.boot_id in self.leaving:
                del planned[number]
            elif member.boot_id in self.configured and member.state == "pending online":
                planned[number] = msgspec.structs.replace(member, state="online")
        for number in self._let_in(now):
            joiner = self.joiners[number]
            planned[number] = Member(number, joiner.boot_id, "pending online", joiner.name)
        return tuple(sorted(planned.values()))

    def _let_in(self, now: float) -> list[int]:
        """The joiners who are no clones and have waited long enough."""
        ready = [n for n, joiner in self.joiners.items() if joiner.check_until is None]
        return [n for n in ready if now >= self.backoff.until(n)]

    def _check_joiners(self, now: float, beats: Beats, boot_id: str) -> None:
        stale = now - 4 * self.settings.repeat
        for number, joiner in list(self.joiners.items()):
            if joiner.asked_at < stale and number != self.number:
                del self.joiners[number]
            elif joiner.check_until is not None and (now >= joiner.check_until or not self.chain.boot_id(number)):
                joiner.check_until = None
            elif joiner.check_until is not None and now >= joiner.probe_at:
                beat = beats.next(now)
                joiner.first_beat = joiner.first_beat or beat
                joiner.probe_at = now + self.settings.probe_gap
                self.orders.append((number, Heartbeat(boot_id, self.chain.id, beat, self.epoch)))

    # --- the log --------------------------------------------------------------------------------------------------

    def _say(self, now: float) -> None:
        """Say to the log what is to be said, first or again."""
        self.repeat_at = now + self.settings.repeat
        if self.proposal is None or self.reads:
            self.orders.append((0, ReadSystem(self._read_id, KIND)))
        else:
            whole = self.proposal.id[1] % max(1, self.settings.kept // 4) == 1
            accused = tuple(sorted(self.going))
            body = msgspec.msgpack.encode(step_to(self.proposal, None if whole else self.chain.last, accused))
            self.orders.append((0, AppendSystem(self._entry_id, self.epoch, KIND, "", body, self.settings.kept)))

    @property
    def _read_id(self) -> str:
        return f"views/{self.epoch}/{self.reads}"

    @property
    def _entry_id(self) -> str:
        assert self.proposal is not None
        return f"view/{self.epoch}/{self.proposal.id[1]}"

    def read(self, came: SystemRead) -> list[Step] | None:
        """The log's views came: return them in order, None when nobody waits for them. One in so many is whole."""
        loading = self.state == "loading"
        if came.id != self._read_id or came.epoch != self.epoch or not (loading or self.reads):
            return None
        self.state, self.repeat_at = "leading", None
        self.certain = not loading
        self.reads = 0
        self.proposal = None
        steps = [msgspec.msgpack.decode(body, type=Step) for slot, _, _, body in came.entries if not slot]
        if loading:
            waits = [body for slot, _, _, body in came.entries if slot.startswith(WAITS)]
            self._loaded = (steps, [msgspec.msgpack.decode(body, type=Waited) for body in waits])
        return steps

    def recall(self, now: float, date: float) -> None:
        """The chain is that of the log now: go on with the waits of former leaders."""
        (steps, waits), self._loaded = self._loaded, ([], [])
        accused = {step.id: step.accused for step in steps if step.accused}
        for view in self.chain.views:
            for member in self.chain.change(view)[1] if view.id in accused else ():
                if member.number in accused[view.id]:
                    self.backoff.removed(member.number, member.boot_id)
        for waited in waits:
            self.backoff.restore(waited, now, date)

    def appended(self, id: str, now: float) -> View | None:
        """The log has an entry: return the view, now committed, or None when it must be read back first."""
        if self.proposal is None or self.reads or id != self._entry_id:
            return None
        if not self.certain:
            self.reads = self.proposal.id[1]
            self._say(now)
            return None
        view, self.proposal, self.repeat_at = self.proposal, None, None
        return view

    def committed(self, view: View, now: float) -> None:
        """A view is in the log and was just added to the chain: forget what it settles, tell everybody."""
        self.changed_at = now
        joined, left = self.chain.change(view)
        boots = {m.boot_id for m in view.members}
        online = {m.boot_id for m in view.members if m.state == "online"}
        self.configured = (self.configured & boots) - online
        self.leaving &= boots
        self.accusations.clear()
        for member in left:
            if member.number in self.going:
                self.backoff.removed(member.number, member.boot_id)
        self.going = set()
        new = {m.number: self.joiners.pop(m.number).view for m in joined if m.number in self.joiners}
        numbers = [m.number for m in view.members]
        told = ViewsAnnounced((step_to(view, self._before(view)),), relay=len(numbers) > FAN_OUT)
        for number in hearers(numbers, self.number, self.number) if told.relay else numbers:
            if number != self.number and number not in new:
                self.orders.append((number, told))
        for number in sorted(new):
            self._catch_up(number, new[number], now)
        self.orders += [(m.number, Removed(m.boot_id, view.id)) for m in left if m.number != self.number]

    def _before(self, view: View) -> View | None:
        position = self.chain.views.index(view)
        return self.chain.views[position - 1] if position else None

    # --- bookkeeping ------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to do though nothing comes in."""
        if self.state == "loading" or self.proposal is not None:
            return self.repeat_at
        times = [t for j in self.joiners.values() if j.check_until for t in (j.check_until, j.probe_at)]
        times += [at for n in self.joiners if (at := self.backoff.until(n)) > self.ticked_at]
        if self.ready_since is not None:
            times.append(self.look_at)
        if self.accusations.deadline is not None:
            times.append(self.accusations.deadline)
        return min(times, default=None)

    def check_invariants(self) -> None:
        """Raise AssertionError when an invariant of this class does not hold."""
        if self.proposal is not None and not self.reads:
            assert self.chain.fits(self.proposal), "1. the proposal does not follow the last view"
        members = {m.number for m in self.chain.members}
        assert self.accusations.alerts.keys() <= members, "2. a node that is no member accuses"
        back = {j.boot_id for j in self.joiners.values()} & self.chain.departed.keys()
        assert not back, f"3. {sorted(back)} departed and would join"

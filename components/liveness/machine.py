"""Decide which nodes are members: what one node hears, thinks and asks for; where its registry leads, it decides.

Knows no socket, clock, thread or disk: time arrives as `now`, results leave as effects. Every node runs one.
The node's half is here and in `peers.py` (who is alive); `leader.py` is the half that only the primary's node
uses; `views.py` is what both agree on.

The life of a node's boot id; there is no way back, a node returns under a new one:

    outside  --- it is in a view --->  member  --- it left, or was removed --->  left, removed
    outside  --- the leader says no, or it left before ----------------------->  refused, removed, left
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from ...bus.machine import (
    Address,
    Asked,
    Effect,
    ImpossibleTransition,
    Message,
    Notify,
    Publish,
    Received,
    Reply,
    Send,
)
from ..registry.messages import Leading, SystemAppended, SystemRead, SystemRefused
from . import report
from .beats import Beats
from .leader import Leader
from .messages import (
    VIEW_TOPIC,
    Adapters,
    Alert,
    ClockRead,
    Configured,
    ConfiguredQ,
    Heartbeat,
    HeartbeatAck,
    Join,
    JoinDelayed,
    JoinRefused,
    Leave,
    LeaveQ,
    Look,
    Member,
    PeerDown,
    Removed,
    Seen,
    Status,
    Step,
    Suspect,
    TasksChecked,
    View,
    ViewChanged,
    ViewId,
    Views,
    ViewsAnnounced,
)
from .networks import FULL_MESH, Networks, networks_of, subjects
from .peers import Peer, Peers
from .relay import hearers
from .seen import Heard
from .settings import Settings
from .telling import Teller
from .views import Chain, difference, digest, view_of
from .waiting import Waiting

Phase = Literal["outside", "member", "left", "removed", "refused"]
PHASES: dict[tuple[Phase, str], Phase] = {
    ("outside", "in view"): "member",
    ("outside", "removed"): "removed",
    ("outside", "refused"): "refused",
    ("outside", "leave"): "left",
    ("member", "removed"): "removed",
    ("member", "leave"): "left",
}


class LivenessMachine:
    """One node's liveness, in one life of the node.

    Invariants: 1. the views it holds are a chain, their ids rise by one, no departed boot id is back
    (INV-18..20); 2. it is a member exactly while its boot id is in its last view, as far as it was told; 3. a
    member observes whom its rings name, and other members only; 4. only a member is quorate; 5. those of
    `Leader`, where there is one.
    """

    def __init__(
        self, number: int, boot_id: str, name: str = "", settings: Settings | None = None, now: float = 0.0
    ) -> None:
        self.number = number
        self.boot_id = boot_id
        self.name = name
        self.settings = settings or Settings()
        self.phase: Phase = "outside"
        self.chain = Chain(self.settings.kept)
        self.peers = Peers(self.settings)
        self.beats = Beats(self.settings, now)
        self.waiting = Waiting(self.settings)
        self.teller = Teller(self.chain, self.settings)
        self.heard = Heard(self.settings)
        self.networks: Networks = {}
        self.leader: tuple[int, int] = (0, 0)  # epoch, node; node 0: not known
        self.lead: Leader | None = None
        self.quorate = False
        self.late_steps = 0
        self.tasks_failed: tuple[str, ...] = ()
        self.view_at = now
        self._now = now
        self._cause = ""
        self._out: list[Effect] = []
        self._deadline: float | None = now
        self._ask_at = now
        self._tasks_at: float | None = None
        self._clock: float | None = None
        self._alerted: tuple[Suspect, ...] = ()
        self._adapters: dict[int, tuple[str, ...]] = {}
        self._unsure_until = now
        self._alert_at = now
        self._rings_checked = False
        self.waits_until = now
        self._published: tuple[Member, ...] = ()
        self._configured = False
        self._state = "offline"
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            Heartbeat: self._on_heartbeat,
            HeartbeatAck: self._on_ack,
            ViewsAnnounced: self._on_views,
            JoinRefused: self._on_refused,
            JoinDelayed: self._on_delayed,
            Look: self._on_look,
            Removed: self._on_removed,
            Leading: self._on_leading,
            SystemAppended: self._on_appended,
            SystemRefused: self._on_log_refused,
            SystemRead: self._on_read,
            **dict.fromkeys((Alert, Join, Configured, Leave), self._on_petition),
        }

    # --- the shape of a machine ---------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `step` must be called next though nothing happened."""
        return self._deadline

    def step(self, now: float, input: Any = None) -> list[Effect]:
        """Take one input, then do whatever is due by now."""
        if self._deadline is not None and now > self._deadline + self.settings.late:
            self.late_steps += 1
            self.peers.excuse(now)
            self._unsure_until = now + self.settings.unsure
        self._now, self._cause, self._out = now, getattr(input, "cause", ""), []
        if isinstance(input, Received):
            handler = self._handlers.get(type(input.message))
            if handler is not None:  # other components publish messages that are none of ours
                handler(input.message, input.source.node or self.number)
        elif isinstance(input, Asked):
            self._answer(input)
        elif input is not None:
            self._learn(input)
        self._tick()
        return self._out

    def check_invariants(self) -> None:
        """Raise AssertionError when an invariant of this class does not hold."""
        self.chain.check()
        assert self.phase != "member" or self._listed, f"2. a member, but not in the view {self.chain.id}"
        if self.phase == "member" and not self._rings_checked:
            self._rings_checked = True
            observed = sorted((peer.number, peer.network) for peer in self.peers if not peer.passing)
            wanted = sorted((number, network) for number, network, _ in self._observed())
            assert observed == wanted, f"3. observed {observed}, to be observed {wanted}"
        assert self.phase != "outside" or not self._listed, f"2. outside, but in the view {self.chain.id}"
        assert self.phase == "member" or not self.quorate, "4. quorate and no member"
        if self.lead is not None:
            self.lead.check_invariants()

    # --- what is due ------------------------------------------------------------------------------------------------

    @property
    def leading(self) -> bool:
        """This node leads: its registry is the primary, and the views of the log are loaded."""
        return self._in_charge and self.lead is not None and self.lead.state == "leading"

    @property
    def _in_charge(self) -> bool:
        return self.lead is not None and self.leader == (self.lead.epoch, self.number)

    @property
    def _hung(self) -> bool:
        return self._tasks_at is not None and self._now > self._tasks_at + self.settings.tasks

    @property
    def _listed(self) -> bool:
        return self.chain.boot_id(self.number) == self.boot_id

    @property
    def _date(self) -> float:
        """The time of day, 0 if it is not known."""
        return 0.0 if self._clock is None else self._now + self._clock

    def _tick(self) -> None:
        probed = self.peers.tick(self._now)
        beat_due = self.beats.due(self._now)
        if (self.phase == "member" or self.leading) and not self._hung:
            if beat_due:
                self._send_beats([peer for peer in self.peers if peer.opinion != "probed" or peer in probed])
            elif probed:
                self._send_beats(probed)
            for number in sorted({peer.number for peer in probed}):
                if self.peers.unproved(number):
                    self._send_beat(number)
            if beat_due and self._leader_unseen:
                self._send_beat(self.leader[1])
            self._accuse(again=beat_due)
        self._petition()
        self._out += self.waiting.expire(self._now)
        if self.lead is not None:
            if self._in_charge:
                self.lead.tick(self._now, self.peers, self.beats, self.boot_id, self._date)
            self._obey(self.lead)
        self._judge_quorum()
        self._rest()

    def _rest(self) -> None:
        times = [self.beats.due_at, self.peers.deadline, self.waiting.deadline]
        if self._wanted() is not None and self.leader[1]:
            times.append(self._ask_at)
        if self.quorate and not self.leading:
            times.append(self.beats.word_until)
        if self._in_charge and self.lead is not None:
            times.append(self.lead.deadline)
        self._deadline = min(time for time in times if time is not None)

    @property
    def _leader_unseen(self) -> bool:
        """In a small cluster everybody hears the leader itself, though it be in no view; in a large one its word."""
        node = self.leader[1]
        return node not in (0, self.number) and len(self.chain.members) <= FULL_MESH and not self.peers.observes(node)

    def _send_beats(self, peers: Sequence[Peer]) -> None:
        if peers:
            beat, leads = self.beats.next(self._now), self._epoch_led()
            for peer in peers:
                self.peers.sent(peer, beat, self._now)
                self._send(peer.number, Heartbeat(self.boot_id, self.chain.id, beat, leads, peer.network))

    def _send_beat(self, number: int) -> None:
        """Over the bus: to one that is not observed."""
        beat = self.beats.next(self._now)
        self._send(number, Heartbeat(self.boot_id, self.chain.id, beat, self._epoch_led()))

    def _epoch_led(self) -> int:
        return self.leader[0] if self.leading else 0

    def _accuse(self, *, again: bool) -> None:
        """Tell the leader whom we suspect, when that changes and once an interval while it is anybody."""
        suspects = tuple(Suspect(*place) for place in self.peers.suspects)
        if self.phase != "member" or self._in_charge or not self.leader[1]:
            return
        if suspects != self._alerted or (again and suspects and self._now >= self._alert_at):
            self._alerted = suspects
            self._alert_at = self._now + self.settings.alert_every(len(self.chain.members)) - self.settings.interval / 2
            unsure = self._now < self._unsure_until or self.peers.deaf
            self._send(self.leader[1], Alert(self.boot_id, self.chain.id, suspects, unsure))

    def _wanted(self) -> Message | None:
        """What this node wants of the leader until it has it."""
        if self.phase == "outside":
            return Join(self.boot_id, self.name, self.chain.id)
        if self.phase == "member" and self.waiting.any(LeaveQ):
            return Leave(self.boot_id)
        if self.phase == "member" and self._configured and self._state == "pending online":
            return Configured(self.boot_id)
        return None

    def _petition(self) -> None:
        wanted = self._wanted()
        if wanted is not None and self.leader[1] and self._now >= self._ask_at:
            self._ask_at = self._now + self.settings.repeat
            self._send(self.leader[1], wanted)

    def _judge_quorum(self) -> None:
        if self.leading:
            self.beats.word_at = self._now
        quorate = self.phase == "member" and self._now < self.beats.word_until
        if quorate != self.quorate:
            self.quorate = quorate
            self._publish()

    def _obey(self, lead: Leader) -> None:
        while lead.orders:
            orders, lead.orders = lead.orders, []
            for number, message in orders:
                if number:
                    self._send(number, message)
                else:
                    self._out.append(Send(Address("registry"), message, self._cause))

    def _send(self, number: int, message: Message) -> None:
        if number == self.number:
            self._handlers[type(message)](message, number)
        else:
            self._out.append(Send(Address("liveness", number), message, self._cause))

    # --- heartbeats -------------------------------------------------------------------------------------------------

    def _on_heartbeat(self, beat: Heartbeat, number: int) -> None:
        member = self.chain.boot_id(number) == beat.boot_id
        self.peers.sign(number, beat.network, beat.boot_id, self._now)
        self._heard(beat, number)
        if self.phase in ("outside", "member") and not self._hung:
            # word of the leader is for members: one that was removed must not take it for its own
            epoch, age = self._word if member else (0, 0.0)
            leads = self._epoch_led() if member else 0
            ack = HeartbeatAck(self.boot_id, self.chain.id, beat.beat, leads, beat.network, epoch, age)
            self._send(number, ack)
        if self.leading and self.lead is not None:
            self.lead.beat(beat, number, self._now)
        elif self.phase == "member" and beat.boot_id in self.chain.departed:
            self._send(number, Removed(beat.boot_id, self.chain.departed[beat.boot_id]))
        elif member and self.phase == "member" and self._now >= self.view_at + self.settings.repeat:
            told = self.teller.lacking(number, beat.view, self._now)
            if told is not None:
                self._send(number, told)

    def _on_ack(self, ack: HeartbeatAck, number: int) -> None:
        sent_at = self.beats.sent_at(ack.beat)
        self.peers.answer(number, ack.network, ack.boot_id, ack.beat, sent_at, self._now)
        if not ack.network and sent_at is not None:
            self.peers.alive_elsewhere(number, ack.boot_id, self._now)
        self._heard(ack, number)
        if ack.epoch and ack.epoch >= self.leader[0]:
            self.beats.word(ack.beat, ack.age)
        if self.leading and self.lead is not None:
            self.lead.answered(ack, number)

    @property
    def _word(self) -> tuple[int, float]:
        """The epoch of the leader whose word this node has, and how old that is."""
        if self.leading:
            return self.leader[0], 0.0
        return (self.leader[0], self._now - self.beats.word_at) if self.quorate else (0, 0.0)

    def _heard(self, beat: Heartbeat | HeartbeatAck, number: int) -> None:
        if self.chain.boot_id(number) == beat.boot_id:
            self.heard.note(number, beat.network, self._now)
        if beat.leads > self.leader[0] or (beat.leads == self.leader[0] > 0 and not self.leader[1]):
            self._follow(beat.leads, number)

    def _on_look(self, look: Look, number: int) -> None:
        """The leader wants to know now how a member is that others accuse."""
        if self.phase == "member" and look.view == self.chain.id and number == self.leader[1]:
            self.peers.link_closed(look.number, self._now)

    # --- views ------------------------------------------------------------------------------------------------------

    def _on_views(self, announced: ViewsAnnounced, number: int) -> None:
        held = self.chain.id
        if self.phase not in ("outside", "member"):
            return
        if not self._take(announced.views, announced.whole):
            self._ask_at = self._now
            if self.phase == "member":
                self._send_beat(number)
        elif announced.relay and self.chain.id > held:
            numbers = [m.number for m in self.chain.members]
            for hearer in hearers(numbers, self.leader[1], self.number):
                self._send(hearer, announced)

    def _take(self, steps: Sequence[Step], whole: bool) -> bool:
        """Go through committed views in order; False: there are more that this node needs."""
        for step in steps:
            if step.id[1] <= self.chain.id[1]:
                continue
            view = view_of(step, self.chain.last)
            begins_late = self.chain.last is None and step.previous[1] > 0
            if view is None or begins_late or not self.chain.fits(view):
                if not whole:
                    return False
                if view is None or view.hash != digest(view):
                    continue  # one that is whole follows
                self.chain.restart(view)
            self._apply(view)
        return self.phase != "outside" and (not steps or self.chain.id[1] >= steps[-1].id[1])

    def _apply(self, view: View) -> None:
        if view.id[0] > self.leader[0]:
            self._follow(view.id[0], 0)
        self.chain.append(view)
        self._state = next((m.state for m in view.members if m.boot_id == self.boot_id), "offline")
        self.view_at, self._alerted = self._now, ()
        self._watch_members()
        if self._listed and self.phase == "outside":
            self._turn("in view")
            self.quorate, self.beats.word_at, self.beats.due_at = True, self._now, self._now
            self._notify({"view": list(view.id), "boot_id": self.boot_id}, "joined")
        if self._listed and self.phase == "member":
            self._publish()
            if self._state == "online":
                self._out += self.waiting.came_true(ConfiguredQ, {"view": list(view.id)})
        elif self.phase == "member":
            self._leave_view(view.id)

    def _watch_members(self) -> None:
        """The members or their adapters are others now: who observes whom follows from them."""
        self.networks = networks_of((m.number for m in self.chain.members), self._adapters)
        if self.lead is not None:
            self.lead.accusations.settle(self.networks)
        self.peers.follow(self._observed(), self._now)
        self._rings_checked = False
        self.heard.keep(self.networks)
        self.teller.keep(tuple(m.number for m in self.chain.members))

    def _observed(self) -> list[tuple[int, str, str]]:
        """Whom this node is to observe, on which network, under which boot id."""
        found: list[tuple[int, str, str]] = []
        if not self._listed and self.lead is None:
            return found
        for network, places in self.networks.items():
            nodes = tuple(sorted(places))
            if self.number in places:
                found += [(n, network, self.chain.boot_id(n)) for n in subjects(nodes)[self.number]]
            elif self.lead is not None and len(nodes) <= FULL_MESH:
                found += [(n, network, self.chain.boot_id(n)) for n in nodes]
        return found

    def _publish(self) -> None:
        view = self.chain.last
        if view is not None:
            joined, left = difference(self._published, view.members)
            self._published = view.members
            body = ViewChanged(view.id, view.members, joined, left, self.quorate, view.hash, view.at)
            self._out.append(Publish(VIEW_TOPIC, body, self._cause))

    def _on_removed(self, removed: Removed, number: int) -> None:
        if removed.boot_id == self.boot_id and self.phase in ("outside", "member"):
            if self.phase == "member" and not self.waiting.any(LeaveQ) and self.leader[1]:
                self._send(self.leader[1], Leave(self.boot_id))  # it runs, and the leader may not know
            self._leave_view(removed.view)

    def _on_refused(self, refused: JoinRefused, number: int) -> None:
        if refused.boot_id == self.boot_id and self.phase == "outside":
            self._turn("refused")
            self._notify({"reason": refused.reason, "by": number})

    def _on_delayed(self, delayed: JoinDelayed, number: int) -> None:
        if delayed.boot_id == self.boot_id and self.phase == "outside":
            self.waits_until = self._now + delayed.seconds

    def _leave_view(self, view: ViewId) -> None:
        was_member = self.phase == "member"
        self._turn("leave" if self.waiting.any(LeaveQ) else "removed")
        self.quorate = False
        self._out += self.waiting.came_true(LeaveQ, {"view": list(view)})
        self._notify({"view": list(view), "boot_id": self.boot_id})
        if was_member:
            self._publish()

    def _turn(self, event: str) -> None:
        if (self.phase, event) not in PHASES:
            raise ImpossibleTransition(f"liveness of node {self.number} is {self.phase} and met: {event}")
        self.phase = PHASES[self.phase, event]
        self._ask_at = self._now

    def _notify(self, body: dict[str, Any], what: str = "") -> None:
        self._out.append(Notify(what or self.phase, body, self._cause))

    # --- who leads, and what is wanted of the leader ------------------------------------------------------------------

    def _on_leading(self, leading: Leading, number: int) -> None:
        if number != self.number:
            return
        usable = leading.phase in ("reads", "writes")
        if not leading.primary or (leading.primary == self.number and not usable):
            self.leader = (self.leader[0], 0)
        elif leading.epoch >= self.leader[0]:
            self._follow(leading.epoch, leading.primary)

    def _follow(self, epoch: int, node: int) -> None:
        if (epoch, node) == self.leader:
            return
        self.leader = (epoch, node)
        self._ask_at, self._alerted = self._now, ()
        if self.lead is not None and self.lead.epoch < epoch:
            self.lead = None  # its reign is over: what it had proposed is in the log by now, or never will be
        if node == self.number and self.lead is None:
            self.lead = Leader(epoch, self.number, self.chain, self.settings, self.teller)
            self._watch_members()

    def _on_petition(self, message: Alert | Join | Configured | Leave, number: int) -> None:
        if self.leading and self.lead is not None:
            self.lead.hear(message, number, self._now)

    # --- the log ----------------------------------------------------------------------------------------------------

    def _on_read(self, read: SystemRead, number: int) -> None:
        steps = self.lead.read(read) if self.lead is not None else None
        if self.lead is not None and steps is not None:
            held, self._ask_at = self.chain.id, self._now
            self._take(steps, whole=True)
            self.lead.recall(self._now, self._date)
            self._watch_members()
            for view in self.chain.since(held) if self.lead.certain else ():
                self.lead.committed(view, self._now)

    def _on_appended(self, appended: SystemAppended, number: int) -> None:
        view = self.lead.appended(appended.id, self._now) if self.lead is not None else None
        if self.lead is not None and view is not None:
            self._apply(view)
            self.lead.committed(view, self._now)

    def _on_log_refused(self, refused: SystemRefused, number: int) -> None:
        if refused.epoch > self.leader[0]:
            self._follow(refused.epoch, 0)

    # --- clients and local facts ----------------------------------------------------------------------------------

    def _answer(self, asked: Asked) -> None:
        question = asked.question
        if isinstance(question, Status):
            self._reply(asked, self._status())
        elif isinstance(question, Seen):
            self._reply(asked, self.heard.report(self.peers, self.networks.get, self._now))
        elif isinstance(question, Views):
            self._reply(asked, report.views_list(self.chain, question.last))
        elif isinstance(question, ConfiguredQ | LeaveQ):
            self._configured = self._configured or isinstance(question, ConfiguredQ)
            if isinstance(question, LeaveQ) and self.phase == "outside":
                if self.leader[1]:  # a join may be under way
                    self._send(self.leader[1], Leave(self.boot_id))
                self._turn("leave")
            if self._holds(question):
                self._reply(asked, {"view": list(self.chain.id)})
            else:
                self.waiting.add(asked, self._now)
                self._ask_at = self._now
        else:
            raise ImpossibleTransition(f"liveness was asked {question!r}, which it does not know")

    def _status(self) -> dict[str, Any]:
        return report.status(
            self._now,
            phase=self.phase,
            chain=self.chain,
            view_at=self.view_at,
            quorate=self.quorate,
            leader=self.leader,
            leading=self.leading,
            peers=self.peers,
            tasks_failed=self.tasks_failed,
            late_steps=self.late_steps,
            networks=self.networks,
            waits=self.waits_until - self._now if self.phase == "outside" else 0.0,
        )

    def _holds(self, question: ConfiguredQ | LeaveQ) -> bool:
        if isinstance(question, LeaveQ):
            return self.phase in ("left", "removed", "refused")
        return self._state == "online"

    def _reply(self, asked: Asked, result: Any) -> None:
        self._out.append(Reply(asked.request, result, asked.cause))

    def _learn(self, fact: Any) -> None:
        if isinstance(fact, PeerDown):
            self.peers.link_closed(fact.node, self._now)
        elif isinstance(fact, Adapters):
            self._adapters = dict(fact.nodes)
            self._watch_members()
        elif isinstance(fact, TasksChecked):
            self.tasks_failed = fact.failed
            if not fact.failed or self._tasks_at is None:
                self._tasks_at = self._now
        elif isinstance(fact, ClockRead):
            self._clock = fact.offset
        else:
            raise ImpossibleTransition(f"liveness got {fact!r}, which it does not know")

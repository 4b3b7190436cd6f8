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
    Alert,
    ClockRead,
    Configured,
    ConfiguredQ,
    Heartbeat,
    HeartbeatAck,
    Join,
    JoinRefused,
    Leave,
    LeaveQ,
    Member,
    PeerDown,
    Removed,
    Status,
    TasksChecked,
    View,
    ViewChanged,
    ViewId,
    Views,
    ViewsAnnounced,
)
from .peers import Peers
from .settings import Settings
from .views import Chain, difference, digest
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
    member's peers are the other members; 4. only a member is quorate; 5. those of `Leader`, where there is
    one.
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
        self._alerted: tuple[int, ...] = ()
        self._published: tuple[Member, ...] = ()
        self._configured = False
        self._state = "offline"
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            Heartbeat: self._on_heartbeat,
            HeartbeatAck: self._on_ack,
            ViewsAnnounced: self._on_views,
            JoinRefused: self._on_refused,
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
        if self.phase == "member":
            assert self._listed, f"2. a member, but not in the view {self.chain.id}"
            peers = sorted(peer.number for peer in self.peers)
            others = [m.number for m in self.chain.members if m.number != self.number]
            assert peers == others, f"3. peers {peers}, other members {others}"
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

    def _tick(self) -> None:
        probed = self.peers.tick(self._now)
        beat_due = self.beats.due(self._now)
        if (self.phase == "member" or self.leading) and not self._hung:
            self._send_beat(self._all_peers() if beat_due else probed)
            self._accuse(again=beat_due)
        self._petition()
        self._out += self.waiting.expire(self._now)
        if self.lead is not None:
            if self._in_charge:
                date = 0.0 if self._clock is None else self._now + self._clock
                self.lead.tick(self._now, self.peers, self.beats, self.boot_id, date)
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

    def _all_peers(self) -> list[int]:
        return sorted({peer.number for peer in self.peers} | ({self.leader[1]} - {0, self.number}))

    def _send_beat(self, targets: Sequence[int]) -> None:
        if targets:
            beat = self.beats.next(self._now)
            for number in targets:
                self._send(number, Heartbeat(self.boot_id, self.chain.id, beat, self._epoch_led()))

    def _epoch_led(self) -> int:
        return self.leader[0] if self.leading else 0

    def _accuse(self, *, again: bool) -> None:
        """Tell the leader whom we suspect, when that changes and once an interval while it is anybody."""
        suspects = self.peers.suspects
        if self.phase != "member" or self._in_charge or not self.leader[1]:
            return
        if suspects != self._alerted or (again and suspects):
            self._alerted = suspects
            self._send(self.leader[1], Alert(self.boot_id, self.chain.id, suspects))

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
        self._heard(beat, number)
        if self.phase in ("outside", "member") and not self._hung:
            # the word of the leader is for members: one that was removed must not take it for its own
            leads = self._epoch_led() if self.chain.boot_id(number) == beat.boot_id else 0
            self._send(number, HeartbeatAck(self.boot_id, self.chain.id, beat.beat, leads))
        if self.leading and self.lead is not None:
            self.lead.beat(beat, number, self._now)

    def _on_ack(self, ack: HeartbeatAck, number: int) -> None:
        self._heard(ack, number)
        if ack.leads and (ack.leads, number) == self.leader:
            self.beats.word(ack.beat)
        if self.leading and self.lead is not None:
            self.lead.answered(ack, number)

    def _heard(self, beat: Heartbeat | HeartbeatAck, number: int) -> None:
        self.peers.sign(number, beat.boot_id, self._now)
        if beat.leads > self.leader[0] or (beat.leads == self.leader[0] > 0 and not self.leader[1]):
            self._follow(beat.leads, number)

    # --- views ------------------------------------------------------------------------------------------------------

    def _on_views(self, announced: ViewsAnnounced, number: int) -> None:
        if self.phase not in ("outside", "member") or self._take(announced.views, announced.whole):
            return
        self._ask_at = self._now
        if self.phase == "member":
            self._send_beat([number])

    def _take(self, views: Sequence[View], whole: bool) -> bool:
        """Go through committed views in order; False: there are more that this node needs."""
        for view in views:
            if view.id[1] <= self.chain.id[1]:
                continue
            begins_late = self.chain.last is None and view.previous[1] > 0
            if begins_late or not self.chain.fits(view):
                if not whole or view.hash != digest(view):
                    return False
                self.chain.restart(view)
            self._apply(view)
        return self.phase != "outside"

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
        watched = self.chain.members if self._listed or self.lead is not None else ()
        self.peers.follow(((m.number, m.boot_id) for m in watched if m.number != self.number), self._now)

    def _publish(self) -> None:
        view = self.chain.last
        if view is not None:
            joined, left = difference(self._published, view.members)
            self._published = view.members
            body = ViewChanged(view.id, view.members, joined, left, self.quorate, view.hash, view.at)
            self._out.append(Publish(VIEW_TOPIC, body, self._cause))

    def _on_removed(self, removed: Removed, number: int) -> None:
        if removed.boot_id == self.boot_id and self.phase in ("outside", "member"):
            self._leave_view(removed.view)

    def _on_refused(self, refused: JoinRefused, number: int) -> None:
        if refused.boot_id == self.boot_id and self.phase == "outside":
            self._turn("refused")
            self._notify({"reason": refused.reason, "by": number})

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
            self.lead = Leader(epoch, self.number, self.chain, self.settings)

    def _on_petition(self, message: Alert | Join | Configured | Leave, number: int) -> None:
        if self.leading and self.lead is not None:
            self.lead.hear(message, number, self._now)

    # --- the log ----------------------------------------------------------------------------------------------------

    def _on_read(self, read: SystemRead, number: int) -> None:
        views = self.lead.read(read) if self.lead is not None else None
        if self.lead is not None and views is not None:
            held, self._ask_at = self.chain.id, self._now
            self._take(views, whole=True)
            self._watch_members()
            for view in self.chain.since(held) if self.lead.certain else ():
                self.lead.committed(view, self._now)

    def _on_appended(self, appended: SystemAppended, number: int) -> None:
        view = self.lead.appended(appended.id, self._now) if self.lead is not None else None
        if self.lead is not None and view is not None:
            self._take([view], whole=True)
            self.lead.committed(view, self._now)

    def _on_log_refused(self, refused: SystemRefused, number: int) -> None:
        if refused.epoch > self.leader[0]:
            self._follow(refused.epoch, 0)

    # --- clients and local facts ----------------------------------------------------------------------------------

    def _answer(self, asked: Asked) -> None:
        question = asked.question
        if isinstance(question, Status):
            self._reply(asked, self._status())
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
        elif isinstance(fact, TasksChecked):
            self.tasks_failed = fact.failed
            if not fact.failed or self._tasks_at is None:
                self._tasks_at = self._now
        elif isinstance(fact, ClockRead):
            self._clock = fact.offset
        else:
            raise ImpossibleTransition(f"liveness got {fact!r}, which it does not know")

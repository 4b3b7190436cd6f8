"""One liveness machine, talked to line by line: the tests of its rules are such conversations."""

from __future__ import annotations

from typing import Any

import msgspec
from covey.bus.machine import Address, Asked, Effect, Message, Notify, Publish, Received, Reply, Send
from covey.components.liveness.machine import LivenessMachine
from covey.components.liveness.messages import Heartbeat, HeartbeatAck, Join, Member, Step, View, ViewsAnnounced
from covey.components.liveness.views import make, step_to, view_of
from covey.components.registry.messages import AppendSystem, Leading, ReadSystem, SystemAppended, SystemRead


class Script:
    """A machine, its clock, and what it did since it was last looked at."""

    def __init__(self, number: int = 2, boot_id: str = "", now: float = 1000.0) -> None:
        self.number = number
        self.now = now
        self.machine = LivenessMachine(number, boot_id or f"b{number}", f"n{number}", now=now)
        self.effects: list[Effect] = []
        self.views: list[View] = []
        self.log: list[bytes] = []

    # --- what happens to it ---------------------------------------------------------------------------------------

    def feed(self, input: Any = None) -> None:
        self.effects += self.machine.step(self.now, input)
        self.machine.check_invariants()

    def hear(self, node: int, message: Message, service: str = "liveness") -> None:
        self.feed(Received(Address(service, node), message, "cause"))

    def ask(self, question: Any, request: int = 1) -> None:
        self.feed(Asked(request, question, "cause"))

    def wait(self, seconds: float) -> None:
        """Let time pass, deadline by deadline."""
        end = self.now + seconds
        while (due := self.machine.deadline) is not None and due <= end:
            self.now = max(self.now, due)
            self.feed()
        self.now = end

    def sleep(self, seconds: float) -> None:
        """Let time pass without the machine running: it was stopped, or slow."""
        self.now += seconds
        self.feed()

    def leading(self, epoch: int, primary: int, phase: Any = "writes") -> None:
        self.hear(self.number, Leading(epoch, primary, phase, phase == "writes"), "registry")

    def view(self, *numbers: int, epoch: int = 1, boots: dict[int, str] | None = None, online: bool = True) -> View:
        """Make the next committed view, of these numbers."""
        boots = boots or {}
        state: Any = "online" if online else "pending online"
        members = [Member(n, boots.get(n, f"b{n}"), state, f"n{n}") for n in numbers]
        self.views.append(make(self.views[-1] if self.views else None, epoch, members))
        return self.views[-1]

    def announce(self, *views: View, source: int = 1, whole: bool = False) -> None:
        steps = []
        for view in views:
            before = self.views[self.views.index(view) - 1] if view in self.views[1:] else None
            steps.append(step_to(view, before if steps or not whole else None))
        self.hear(source, ViewsAnnounced(tuple(steps), whole))

    def beat(self, node: int, *, boot: str = "", leads: int = 0, view: Any = None) -> None:
        self.hear(node, Heartbeat(boot or f"b{node}", view or self.machine.chain.id, 1, leads))

    def answer_beats(self, *nodes: int, leads: int = 0, boot: str = "") -> None:
        """Let these nodes answer every heartbeat that was sent to them and not looked at yet."""
        beats = [
            (e.to.node, e.message) for e in self.effects if isinstance(e, Send) and isinstance(e.message, Heartbeat)
        ]
        for node, beat in beats:
            if node in nodes:
                ack = HeartbeatAck(
                    boot or f"b{node}", self.machine.chain.id, beat.beat, leads, beat.network, epoch=leads
                )
                self.hear(node, ack)

    def peers_alive(self, seconds: float, *nodes: int, leads: int = 0) -> None:
        """Let time pass while these nodes answer; the first of them leads, if `leads`."""
        for _ in range(round(seconds * 5)):
            self.wait(0.2)
            for node in nodes:
                self.answer_beats(node, leads=leads if node == nodes[0] else 0)
            self.effects = [e for e in self.effects if not (isinstance(e, Send) and isinstance(e.message, Heartbeat))]

    # --- the log of a leader ----------------------------------------------------------------------------------------

    def load(self, epoch: int) -> None:
        """Answer the leader's question for the views of the log."""
        asked = self.sent(ReadSystem)[-1]
        entries = tuple(("", i + 1, epoch, body) for i, body in enumerate(self.log))
        self.hear(self.number, SystemRead(asked.id, entries, epoch), "registry")

    def commit(self, epoch: int) -> None:
        """Append what the leader proposes, and answer the read-back of its first entry."""
        asked = self.sent(AppendSystem)[-1]
        self.log.append(asked.body)
        self.take()
        self.hear(self.number, SystemAppended(asked.id, len(self.log), epoch), "registry")
        if self.sent(ReadSystem):
            self.load(epoch)

    def rule(self, *numbers: int, epoch: int = 1) -> None:
        """Make it the leader, with itself and these nodes in its view."""
        self.leading(epoch, self.number)
        self.load(epoch)
        for number in numbers:
            self.hear(number, Join(f"b{number}", f"n{number}"))
        self.wait(0.15)
        self.commit(epoch)
        self.take()

    # --- what it did --------------------------------------------------------------------------------------------------

    def take(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        return effects

    def sent(self, kind: type, to: int | None = None) -> list[Any]:
        """Return the messages of a kind it sent, to a node if one is named."""
        sends = [e for e in self.effects if isinstance(e, Send) and isinstance(e.message, kind)]
        return [e.message for e in sends if to is None or e.to.node == to]

    def replies(self) -> list[Any]:
        return [e.result for e in self.effects if isinstance(e, Reply)]

    def notified(self) -> list[str]:
        return [e.what for e in self.effects if isinstance(e, Notify)]

    def published(self) -> list[Any]:
        return [e.body for e in self.effects if isinstance(e, Publish)]

    def proposed(self) -> View:
        """Return the view it last asked the log to append."""
        step = msgspec.msgpack.decode(self.sent(AppendSystem)[-1].body, type=Step)
        view = view_of(step, self.machine.chain.last)
        assert view is not None
        return view

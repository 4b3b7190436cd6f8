"""The fast messages of this node's parties until they are seen in their order: numbered, repeated, answered.

A message is answered when this node has it from the coordinator, in its place. Unlike a proposal it cannot be
withdrawn: one that was not seen in time may still have been sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ... import errors
from ...bus.machine import Address, Effect, Reply, Send
from .messages import SERVICE, FastMessage, FastSend
from .settings import Settings


class _Item:
    def __init__(self, number: int, party: str, body: bytes, request: int, until: float, cause: str) -> None:
        self.number = number
        self.party = party
        self.body = body
        self.request = request
        self.until = until
        self.cause = cause


class _Line:
    """What one group has not sequenced yet, in order."""

    def __init__(self, session: int) -> None:
        self.session = session
        self.last = 0
        self.items: list[_Item] = []
        self.repeat_at = 0.0


class FastSender:
    """Bring fast messages to the coordinator. Invariant: what waits has rising numbers."""

    def __init__(self, node: int, boot_id: str, session: int, settings: Settings, out: list[Effect]) -> None:
        self._node = node
        self._boot_id = boot_id
        self._session = session
        self._settings = settings
        self._out = out
        self._lines: dict[str, _Line] = {}
        self._busy: dict[str, _Line] = {}
        self.primary = 0

    def add(self, now: float, group: str, party: str, body: bytes, request: int, cause: str) -> None:
        """Send a message; `request` is answered when it is in its place. Raises Overloaded."""
        line = self._lines.setdefault(group, _Line(self._session))
        if len(line.items) >= self._settings.fast_messages:
            text = f"{len(line.items)} fast messages of this node wait in the group {group}"
            raise errors.Overloaded(text, "wait for answers before you send more")
        self._busy[group] = line
        after = line.items[-1].number if line.items else 0
        line.last += 1
        line.items.append(_Item(line.last, party, body, request, now + self._settings.decide_within, cause))
        if not after:
            line.repeat_at = now + self._settings.repeat
        self._send(group, line, after, line.items[-1:])

    def _send(self, group: str, line: _Line, after: int, items: list[_Item]) -> None:
        if self.primary and items:
            messages = tuple((item.number, item.party, item.body) for item in items)
            message = FastSend(group, self._boot_id, line.session, after, messages)
            self._out.append(Send(Address(SERVICE, self.primary), message, items[0].cause))

    def repeat(self, now: float, group: str | None = None) -> None:
        """Send what is not sequenced anew, of one group or of all: as much as is one batch."""
        for name, line in sorted(self._busy.items() if group is None else [(group, self._lines[group])]):
            line.repeat_at = now + self._settings.repeat
            room, count = self._settings.batch_bytes, 0
            for item in line.items[: self._settings.window]:
                room -= len(item.body)
                if room < 0 and count:
                    break
                count += 1
            self._send(name, line, 0, line.items[:count])

    def outdated(self, now: float, group: str, session: int) -> None:
        """The coordinator knows a later session of this node in that group: number the line anew above it."""
        line = self._lines.get(group)
        if line is None or line.session >= session:
            return
        line.session, line.last = session + 1, len(line.items)
        for number, item in enumerate(line.items, 1):
            item.number = number
        self.repeat(now, group)

    # --- what became of them -------------------------------------------------------------------------------------

    def sequenced(self, group: str, view: int, first: int, messages: Iterable[FastMessage]) -> None:
        """These messages are in their place, the first as number `first` of the view: answer those of this node."""
        line = self._lines.get(group)
        if line is None or not line.items:
            return
        for place, message in enumerate(messages, first):
            if message.who.node != self._node or message.session != line.session:
                continue
            while line.items and line.items[0].number <= message.number:
                item = line.items.pop(0)
                result: dict[str, Any] = {"group": group, "view": view, "sequence": place}
                self._out.append(Reply(item.request, result, item.cause))
        self._is_busy(group, line)

    def refused(self, group: str, session: int, number: int) -> None:
        """The party of that message is no member."""
        line = self._lines.get(group)
        if line is None or line.session != session:
            return
        for item in [item for item in line.items if item.number == number]:
            error = errors.NotMember(f"{item.party} is no member of the group {group}", "join it first")
            self._out.append(Reply(item.request, error, item.cause))
            line.items.remove(item)
        self._is_busy(group, line)

    def _is_busy(self, group: str, line: _Line) -> None:
        if not line.items:
            self._busy.pop(group, None)

    def give_up(self, error: errors.CoveyError) -> None:
        """Answer all with an error."""
        for line in self._busy.values():
            for item in line.items:
                self._out.append(Reply(item.request, error, item.cause))
            line.items.clear()
        self._busy.clear()

    # --- time ----------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `tick` must be called next."""
        return min((min(line.repeat_at, line.items[0].until) for line in self._busy.values()), default=None)

    def tick(self, now: float) -> None:
        """Repeat what is not sequenced; give up what took too long."""
        for name, line in sorted(self._busy.items()):
            while line.items and now >= line.items[0].until:
                item = line.items.pop(0)
                text = f"the fast message to the group {name} was not sequenced in {self._settings.decide_within:g} s"
                self._out.append(Reply(item.request, errors.Timeout(text, "it may still have happened"), item.cause))
            self._is_busy(name, line)
            if now >= line.repeat_at and line.items:
                self.repeat(now, name)

    def check_invariants(self) -> None:
        """Raise AssertionError when the invariant of the class does not hold."""
        for name, line in self._lines.items():
            numbers = [item.number for item in line.items]
            assert numbers == sorted(set(numbers)) and numbers[-1:] <= [line.last], f"{name}: {numbers}"
            assert (name in self._busy) == bool(numbers), f"{name}: {numbers}"

"""The coordinator's half of fast messages: it numbers them, within one view of their group and past the log.

A coordinator that takes over knows less than the nodes may have delivered. Until every node of the membership view has
reported what it has (in its `Fetch`), and has lent what this one lacks, nothing is sequenced and no view is ended of a
group that has fast messages; what then is known is all there is, and those who lack some of it are told. A node that
does not do so in time, since its groups process hangs, may have had more than anybody else: so its members in such
groups fail, and in these nothing is numbered before the decision that says so has ended the view. A group's first fast
message waits for a decision in the log that marks the group, so that only such groups ever wait for reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ...bus.machine import Message
from .fast import Streams
from .messages import Fast, FastMessage, FastRefused, FastSend, Lend, Lent, Member, Outdated, Report
from .replica import Group, Replica
from .settings import Settings


class _Held(NamedTuple):
    node: int
    message: FastSend
    cause: str


class Tell(NamedTuple):
    """How the coordinator speaks: to one node; what it has announced; to all, with the number of an announcement."""

    one: Callable[[int, Message, str], None]
    beat: Callable[[int, str], None]
    all: Callable[[Fast, str], None]


class Sequencer:
    """Number fast messages. While a report or a loan is missing, nothing is numbered."""

    def __init__(self, settings: Settings, replica: Replica, streams: Streams, tell: Tell) -> None:
        self._settings = settings
        self._replica = replica
        self._streams = streams
        self._tell = tell
        self._term = 0
        self._awaited: dict[int, str] | None = None  # boot ids of nodes whose reports are missing; None: not known yet
        self._reports: dict[int, Report] = {}
        self._lenders: dict[tuple[str, int, int], float] = {}  # group, view, node: when it was asked
        self._last: dict[tuple[str, int], tuple[int, int]] = {}
        self._held: dict[str, list[_Held]] = {}
        self._closed: set[str] = set()  # groups whose view is about to change
        self._until = 0.0  # when those are given up who have not reported, or not lent
        self.flushed = False  # whether all is known that any node of the view has

    # --- taking over ---------------------------------------------------------------------------------------------

    def lead(self, now: float, term: int, nodes: dict[int, str], own: int) -> None:
        """Begin a term: wait for the reports of all nodes of the view but the own one."""
        self.retire()
        self._term, self._until = term, now + self._settings.report_within
        self._reports[own] = self._streams.report()
        self.view_changed(nodes)

    def retire(self) -> None:
        """Sequence nothing any more."""
        for part in (self._reports, self._lenders, self._last, self._held, self._closed):
            part.clear()
        self._term, self._awaited, self.flushed = 0, None, False

    def view_changed(self, nodes: dict[int, str]) -> bool:
        """Wait no more for nodes that are gone; return whether that was the last to wait for."""
        if not self._term or not nodes:
            return False
        awaited = nodes if self._awaited is None else self._awaited
        self._awaited = {
            node: boot for node, boot in awaited.items() if nodes.get(node) == boot and node not in self._reports
        }
        self._lenders = {key: at for key, at in self._lenders.items() if key[2] in nodes}
        return self._is_flushed()

    def reported(self, now: float, node: int, report: Report) -> bool:
        """Take a node's report of this term; return whether that was the last to wait for."""
        if self.flushed or node in self._reports:
            return False
        self._reports[node] = report
        if self._awaited is not None:
            self._awaited.pop(node, None)
        for name, views in sorted(report.items()):
            for view, count in views:
                if count > self._streams.get(name, view).count:
                    self._lend(now, (name, view, node))
        return self._is_flushed()

    def _lend(self, now: float, key: tuple[str, int, int]) -> None:
        name, view, node = key
        self._lenders[key] = now
        self._tell.one(node, Lend(self._term, name, view, self._streams.get(name, view).count), "")

    def lent(self, node: int, message: Lent) -> bool:
        """Take what a node has more than this one; return whether that was the last to wait for."""
        key = (message.group, message.view, node)
        if message.term != self._term or self._lenders.pop(key, None) is None:
            return False
        told = Fast(self._term, 0, message.group, message.view, message.first, message.messages)
        self._streams.take(told, jump=True)
        return self._is_flushed()

    def _is_flushed(self) -> bool:
        """If nothing is missing any more: end the streams of views that are over, and tell what somebody may lack."""
        if self.flushed or self._lenders or self._awaited is None or self._awaited:
            return False
        self.flushed = True
        for name, views in self._streams.report().items():
            for view, count in views:
                if view < self._replica.get(name).view:
                    self._streams.end(name, view)
                stream = self._streams.get(name, view)
                lowest = min(dict(report.get(name, ())).get(view, 0) for report in self._reports.values())
                if lowest < count or stream.end is not None:
                    self._tell.all(self._streams.told(self._term, 0, name, stream, lowest), "")
        return True

    def late(self, now: float) -> set[int]:
        """Return the nodes that had their time to report, or to lend what they reported."""
        if self.flushed or self._awaited is None or now < self._until:
            return set()
        return self._awaited.keys() | {node for _, _, node in self._lenders}

    def give_up(self, nodes: set[int], names: Iterable[str]) -> bool:
        """Do without these nodes. In these groups, of which they have members, the view ends first. Return whether
        that was the last to wait for."""
        self._closed.update(names)
        self._awaited = {node: boot for node, boot in (self._awaited or {}).items() if node not in nodes}
        self._lenders = {key: at for key, at in self._lenders.items() if key[2] not in nodes}
        return self._is_flushed()

    @property
    def deadline(self) -> float | None:
        """When `tick` or `late` must be called next."""
        times = [at + self._settings.repeat for at in self._lenders.values()]
        if self._awaited is not None and not self.flushed:
            times.append(self._until)
        return min(times, default=None)

    def tick(self, now: float) -> None:
        """Ask again for what was not lent."""
        for key, at in sorted(self._lenders.items()):
            if now >= at + self._settings.repeat:
                self._lend(now, key)

    # --- sequencing ----------------------------------------------------------------------------------------------

    def sent(self, node: int, message: FastSend, cause: str) -> bool:
        """Number the messages of a node; return whether the group must be marked in the log first."""
        group = self._replica.get(message.group)
        if not self.flushed or not group.fast or group.name in self._closed:
            held = self._held.setdefault(group.name, [])
            if len(held) < self._settings.queue:  # one that finds no room is repeated
                held.append(_Held(node, message, cause))
            return bool(group.members) and not group.fast
        self._number(group, node, message, cause)
        return False

    def close(self, name: str) -> int:
        """The group's view is about to end: number no more in it; return how many it has."""
        self._closed.add(name)
        return self._streams.cursor(self._replica.get(name))[1]

    def resume(self, name: str) -> None:
        """The group may go on: number what was held back."""
        self._closed.discard(name)
        for held in self._held.pop(name, ()):
            self.sent(*held)

    def resume_all(self) -> None:
        """All groups may go on, but those whose view is about to change."""
        for name in sorted(self._held.keys() - self._closed):
            self.resume(name)

    def _number(self, group: Group, node: int, message: FastSend, cause: str) -> None:
        key = (group.name, node)
        session, last = max(self._last.get(key, (0, 0)), self._streams.last(*key))
        if message.session < session:
            self._tell.one(node, Outdated(group.name, session), cause)
            return
        last = last if message.session == session else 0
        if message.after > last:
            return  # what is before it was lost, and is on its way again
        taken: list[FastMessage] = []
        for number, party, body in message.messages:
            if number <= last:
                continue
            last = number
            member: Member | None = group.members.get((node, message.boot_id, party))
            if member is None:
                self._tell.one(node, FastRefused(group.name, message.session, number), cause)
            else:
                taken.append(FastMessage(member, message.session, number, body))
        self._last[key] = (message.session, last)
        if not taken:  # it is numbered already, and the sender has not seen it
            self._tell.beat(node, cause)
            return
        first = self._streams.cursor(group)[1] + 1
        self._tell.all(Fast(self._term, 0, group.name, group.view, first, tuple(taken)), cause)

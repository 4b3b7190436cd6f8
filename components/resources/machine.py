"""Keep what the registry says of this node what its controllers find, and know which classes the cluster has.

Knows no socket, clock, thread or random source. Each controller has a `Supervision` (states, calls, back-off) with a
`Poller` (dynamic attributes); the `Writer` brings what a discovery found into the registry; `VersionTable` holds the
classes of the peers; `Waiters` the questions that are not answered yet, `Changes` what callers change, `News` what
changed, for watchers. Odd: the moment
of a discovery comes as text inside its message, because "gone since" is for people and the machine's own time means
nothing to them.

Invariants (`check_invariants`): 1. at most one call for classes or discovery is under way at a controller, and one is
while it is discovering. 2. A class belongs to one controller. 3. Reads under way at a controller stay within the
setting. 4. A transaction under way writes only this node's resources. 5. No question waits twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...bus.machine import Address, Asked, Effect, Notify, Received, Reply, Send
from ...controllers.catalog import Catalog, Versions
from ...controllers.classes import to_wire
from ...controllers.selection import selection
from ...errors import CoveyError
from .changing import Changes
from .messages import (
    SERVICE,
    AskVersions,
    CallFailed,
    Changed,
    ChangeOne,
    ClassesKnown,
    ClassVersions,
    ControllerAppeared,
    ControllerGone,
    ControllersListed,
    DescribeClass,
    Described,
    DiscoverAll,
    Discovered,
    Entry,
    Fact,
    ListClasses,
    MembersChanged,
    Opened,
    ReadLocal,
    SelectLocal,
    Standing,
    Stored,
    Values,
    WatchLocal,
    Written,
)
from .news import News
from .polling import Poller
from .settings import Settings
from .supervision import Supervision
from .versions import VersionTable
from .waiting import Waiters, answer
from .writing import Writer

CONTROLLER = "controller."


class ResourcesMachine:
    """Decide what to ask controllers and what to write to the registry, from what they answered and when."""

    def __init__(self, node: int, token: str, settings: Settings | None = None) -> None:
        """`token` is unique to this run of the process: request ids at the registry are made from it."""
        self.node = node
        self.settings = settings or Settings()
        self.controllers: dict[str, Supervision] = {}
        self.versions = VersionTable()
        self.catalog = Catalog()
        self.waiters = Waiters(node, self.controllers, self.catalog)
        self.writer = Writer(node, self.settings, self._next_id)
        self.changes = Changes(node, self.settings, self._next_id)
        self.news = News(node, token, self.settings)
        self._token = token
        self._count = 0
        self._listed = False
        self._known: Versions = {}
        self._told: Versions | None = None
        self._ask_versions_at: float | None = None
        self._steps: list[int] = []

    @property
    def deadline(self) -> float | None:
        """When `step` must be called next though nothing happened. Seconds, monotonic."""
        times = [supervision.deadline for supervision in self.controllers.values()]
        times += [
            self.writer.deadline,
            self.waiters.deadline,
            self.changes.deadline,
            self.news.deadline,
            self._ask_versions_at,
        ]
        return min((time for time in times if time is not None), default=None)

    def step(self, now: float, input: Any = None) -> list[Effect]:
        """Take one input, then do all that is due."""
        effects: list[Effect] = []
        match input:
            case None:
                pass
            case Received(source, message) if source.service.startswith(CONTROLLER):
                supervision = self.controllers.get(source.service.removeprefix(CONTROLLER))
                if supervision is not None:
                    effects += self._heard_controller(now, supervision, message)
            case Received(source, message):
                effects += self._heard(now, source, message)
            case Asked():
                try:
                    effects += self._asked(now, input)
                except CoveyError as refused:
                    effects.append(Reply(input.request, refused, input.cause))
            case _:
                effects += self._happened(now, input)
        effects += self.writer.tick(now)
        for _, supervision in sorted(self.controllers.items()):
            effects += supervision.tick(now)
            effects += self.writer.write(now, supervision)
        for _, supervision in sorted(self.controllers.items()):
            if supervision.held and self._may_discover(supervision):
                supervision.discover(now)
                effects += supervision.tick(now)
        effects += self.changes.tick(now, self.waiters.owner, self._is_writing)
        effects += self._boot_steps()
        effects += self._ask_versions(now)
        effects += self.waiters.tick(now, self._listed)
        effects += self.news.tick(now)
        return effects

    def check_invariants(self) -> None:
        """Raise AssertionError when an invariant of the module's docstring does not hold."""
        for name, supervision in sorted(self.controllers.items()):
            discovering = supervision.call is not None and supervision.call.what == "discover"
            assert discovering == (supervision.state == "discovering"), f"1: {name} is {supervision.state}"
            for cls in supervision.classes:
                assert self.catalog.owner(cls) == name, f"2: {cls} belongs to {self.catalog.owner(cls)} and {name}"
            assert supervision.poller.under_way <= self.settings.reads_at_once, f"3: too many reads at {name}"
        for write in self.writer.writes.values():
            for path, value in write.transaction.puts:
                assert value["node"] == self.node, f"4: {path} is written for node {value['node']}"
        requests = [waiter.request for waiter in self.waiters.discovers]
        requests += [waiter.request for waiter in self.waiters.reads]
        requests += [change.request for change in self.changes.ongoing]
        requests += [watcher.request for watcher in self.news.waiting]
        assert len(requests) == len(set(requests)), "5: a question waits twice"

    # --- inputs ---------------------------------------------------------------------------------------------

    def _happened(self, now: float, fact: Fact) -> list[Effect]:
        match fact:
            case Opened():
                self.writer.reload(now)
            case ClassesKnown(classes):
                self._known = classes
                self.catalog.reserve(classes)
                return self._tell_versions()
            case ControllersListed(entries):
                self._expect(now, entries)
            case ControllerAppeared(name):
                # Before the list is there nothing is expected, and then the list names it.
                if self._listed:
                    self._supervision(name).appeared(now)
            case ControllerGone(name, reason):
                if name in self.controllers:
                    self.controllers[name].gone(now, reason)
            case MembersChanged(nodes):
                first = not self.versions.nodes
                self.versions.members(nodes)
                if self._ask_versions_at is None:
                    # Those who were here before us have told before we came; a newcomer is about to tell.
                    self._ask_versions_at = now if first else now + self.settings.ask_again
            case _:
                raise TypeError(f"{type(fact).__name__} is no input of the Resource Manager")
        return []

    def _expect(self, now: float, entries: Iterable[Entry]) -> None:
        self._listed = True
        for entry in entries:
            supervision = self._supervision(entry.name)
            if entry.state == "running":
                supervision.appeared(now)
            elif entry.state == "starting":
                supervision.started(now)
            else:
                supervision.not_started(entry.reason)

    def _heard_controller(self, now: float, supervision: Supervision, message: Any) -> list[Effect]:
        if isinstance(message, Changed | CallFailed):
            effects = self.changes.answered(now, supervision, message)
            if effects is not None:
                return effects
        match message:
            case Described():
                if supervision.described(now, message, self.catalog):
                    return self._tell_versions()
            case Discovered():
                supervision.discovered(now, message, self.writer.attributes)
            case Values():
                supervision.values(now, message)
            case CallFailed():
                supervision.call_failed(now, message)
        return []

    def _heard(self, now: float, source: Address, message: Any) -> list[Effect]:
        match message:
            case Stored():
                return self.writer.loaded(message)
            case Written():
                self.writer.written(now, message)
            case CallFailed():
                self.writer.failed(now, message)
            case AskVersions() if self._told is not None:
                return [Send(Address(SERVICE, source.node), ClassVersions(self.node, self._told))]
            case ClassVersions(node, classes):
                self.versions.told(node, classes)
        return []

    def _asked(self, now: float, asked: Asked) -> list[Effect]:
        question = asked.question
        result: Any
        match question:
            case DiscoverAll(_, again):
                if again:
                    self.writer.reload(now)
                self.waiters.discover(now, asked.request, question, asked.cause)
                return []
            case ReadLocal(cls) | SelectLocal(cls):
                if isinstance(question, SelectLocal):
                    selection(self.catalog.get(cls), question.select)  # refused at once, before anything is read
                if question.fresh:
                    self.waiters.read(now, asked.request, question, asked.cause)
                    return []
                result = answer(now, self.node, self.waiters.owner(cls), question)
            case WatchLocal(cls, select):
                description = self.catalog.get(cls)
                chosen = selection(description, select) if select else None
                self.news.ask(now, asked.request, asked.cause, question, chosen)
                return []
            case ChangeOne(_, cls):
                self.changes.ask(asked.request, question, asked.cause, self.waiters.owner(cls))
                return []
            case DescribeClass(cls):
                result = to_wire(self.catalog.get(cls))
            case ListClasses():
                result = {
                    "items": self.versions.rows(),
                    "warnings": self.versions.differences(),
                    "told": self.versions.tellers,
                }
            case Standing():
                result = [found.standing() for _, found in sorted(self.controllers.items())]
            case _:
                raise TypeError(f"{type(question).__name__} is no question of the Resource Manager")
        return [Reply(asked.request, result, asked.cause)]

    # --- what follows ---------------------------------------------------------------------------------------

    def _supervision(self, name: str) -> Supervision:
        if name not in self.controllers:
            poller = Poller(name, self.settings, self._next_id, self.news.tell)
            self.controllers[name] = Supervision(name, self.node, self.settings, self._next_id, poller)
        return self.controllers[name]

    def _is_writing(self, name: str) -> bool:
        """Whether something of this controller is not in the registry yet."""
        return self.controllers[name].unwritten is not None or name in self.writer.writes

    def _may_discover(self, supervision: Supervision) -> bool:
        """Whether what the controller's classes depend on has been looked for; a class that nobody brings is no
        obstacle, once every controller has said what it brings or has failed."""
        owners, missing = self.catalog.awaited(supervision.name)
        awaited = [self.controllers[name] for name in owners]
        if missing:
            awaited += [found for found in self.controllers.values() if not found.classes]
        return all(found.looked for found in awaited)

    def _tell_versions(self) -> list[Effect]:
        """Tell the peers which classes this node has, when that changed.

        Until the boot is over, what the description files say counts for controllers that have not spoken yet.
        """
        own: Versions = {} if 24 in self._steps else dict(self._known)
        own |= self.catalog.versions()
        if own == self._told:
            return []
        self._told = own
        self.versions.told(self.node, own)
        return [Notify("tell_classes", own)]

    def _ask_versions(self, now: float) -> list[Effect]:
        if self._ask_versions_at is None or self._ask_versions_at > now:
            return []
        untold = [node for node in self.versions.untold if node != self.node]
        self._ask_versions_at = now + self.settings.ask_again if untold else None
        return [Send(Address(SERVICE, node), AskVersions()) for node in untold]

    def _boot_steps(self) -> list[Effect]:
        """Say once each: the first controller has its classes (22), one has written (23), all are ready (24).

        Where no controller ever gets there, 22 and 23 are said to have failed just before 24.
        """
        if 24 in self._steps or not self._listed:
            return []
        controllers = sorted(self.controllers.items())
        done = [name for name, found in controllers if found.outcome == "done"]
        described = [name for name, found in controllers if found.classes or name in done]
        failed = [name for name, found in controllers if found.outcome == "failed"]
        settled = len(done) + len(failed) == len(controllers)
        how = "failed" if controllers else "done"
        nothing = "no controller got that far" if controllers else "no controller is configured"
        effects: list[Effect] = []
        for step, there, what in ((22, described, "has its classes"), (23, done, "has written what it found")):
            if step not in self._steps and (there or settled):
                self._steps.append(step)
                event, outcome = (f"{there[0]} {what}", "done") if there else (nothing, how)
                effects.append(Notify("boot_step", {"step": step, "event": event, "how": outcome}))
        if settled:
            self._steps.append(24)
            event = f"{len(done)} of {len(controllers)} controllers ready" if controllers else nothing
            event += f", failed: {', '.join(failed)}" if failed else ""
            outcome = "done" if done or not controllers else "failed"
            effects.append(Notify("boot_step", {"step": 24, "event": event, "how": outcome}))
            effects += self._tell_versions()
        return effects

    def _next_id(self) -> str:
        self._count += 1
        return f"{self._token}-{self._count}"

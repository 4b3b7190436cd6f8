"""One controller as the Resource Manager sees it: its state, its calls and their deadlines, its back-off.

Knows no bus, no clock, no registry. States and what leads from one to another are in `TRANSITIONS`. At most one call
for classes or discovery is under way; one that passed its deadline is `overdue`: it counts as failed, its answer is
still taken if it comes, and no further call is piled on it until it does or twice its deadline has passed. Odd: failing
reads make the controller failed only when not one of its resources can be read; else the resource keeps the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from ...bus.machine import Address, Effect, ImpossibleTransition, Notify, Send
from ...controllers.catalog import Catalog
from ...errors import CycleError, PluginError
from .checked import Checked, KnownClass, checked_found, checked_values, known_classes
from .messages import CallFailed, Describe, Described, Discover, Discovered, Values
from .polling import Poller
from .settings import Settings
from .stored import Resource

State = Literal["starting", "discovering", "running", "failed"]
Outcome = Literal["done", "failed"]

TRANSITIONS: dict[tuple[State, str], State] = {
    ("starting", "appeared"): "starting",
    ("starting", "described"): "discovering",
    ("starting", "failed"): "failed",
    ("discovering", "appeared"): "starting",
    ("discovering", "discovered"): "running",
    ("discovering", "failed"): "failed",
    ("running", "appeared"): "starting",
    ("running", "due"): "discovering",
    ("running", "failed"): "failed",
    ("failed", "appeared"): "starting",
    ("failed", "described"): "discovering",
    ("failed", "due"): "discovering",
    ("failed", "discovered"): "running",
    ("failed", "recovered"): "running",
    ("failed", "failed"): "failed",
}

GONE_CODES = ("bus.no_service", "bus.service_died", "bus.connection_lost")
"""The controller's process is not there (any more); the DCM will start it again."""

CALLED = {"describe": "classes", "discover": "discover"}
"""The verb of a controller for each kind of call."""


class Call(NamedTuple):
    """An order under way."""

    id: str
    what: Literal["describe", "discover"]
    until: float
    limit: float


class Discovery(msgspec.Struct, frozen=True):
    """What a discovery found, checked, and when (RFC 3339). Attempt 0: no discovery, but what changes made."""

    checked: Checked
    at: str
    attempt: int


class Supervision:
    """What is known of one controller of this node, and what is asked of it next."""

    def __init__(
        self, name: str, node: int, settings: Settings, next_id: Callable[[], str], poller: Poller | None = None
    ) -> None:
        self.name = name
        self.state: State = "starting"
        self.reason = ""
        self.classes: dict[str, KnownClass] = {}
        self.poller = poller or Poller(name, settings, next_id)
        self.unwritten: Discovery | None = None
        self.attempt = 0
        self.settled = 0
        self.outcome: Outcome | None = None
        self.held = False
        self.failures = 0
        self.call: Call | None = None
        self.overdue: Call | None = None
        self.due: float | None = None
        self._node = node
        self._settings = settings
        self._next_id = next_id
        self._expected = True
        self._described = False
        self._reading_failed = False
        self._reported: tuple[str, str, tuple[str, ...]] | None = None
        self._orders: list[Effect] = []
        self._amended: set[str] = set()

    @property
    def deadline(self) -> float | None:
        """When `tick` must run next."""
        times = [self.due, self.call.until if self.call else None]
        if self._described:  # until then nothing is read, whatever is wanted
            times.append(self.poller.deadline)
        return min((time for time in times if time is not None), default=None)

    @property
    def looked(self) -> bool:
        """Whether a discovery came to an end since the controller appeared, well or not."""
        return self.outcome is not None or (self.unwritten is not None and self.unwritten.attempt > 0)

    def standing(self) -> dict[str, object]:
        """Return how the controller stands, as plain data."""
        return {
            "name": self.name,
            "state": self.state,
            "reason": self.reason,
            "classes": sorted(self.classes),
            "resources": len(self.poller.resources),
        }

    # --- what happened --------------------------------------------------------------------------------------

    def appeared(self, now: float) -> None:
        """The controller's service is there (again): everything is asked anew, what was known stays until then."""
        if self.state == "starting" and self.call is not None:
            return
        self._become("appeared")
        self._expected = True
        self._described = self.held = self._reading_failed = False
        if self.unwritten is not None:  # it stays true until something else is found
            self.unwritten = msgspec.structs.replace(self.unwritten, attempt=0)
        self.call = self.overdue = self.outcome = None
        self.poller.stop()
        self.due = now

    def started(self, now: float) -> None:
        """Its process was started; it will appear, or is missed in time."""
        self.due = now + self._settings.appear_deadline

    def gone(self, now: float, reason: str) -> None:
        """The controller's service left the bus. It is tried again at its back-off, in case its return goes unheard."""
        if self._described or self.state == "starting":
            self._fail(now, reason, absent=True)

    def not_started(self, reason: str) -> None:
        """The DCM could not start it; nothing is asked until it appears."""
        self._become("failed")
        self._expected = False
        self.reason = reason
        self.outcome = "failed"

    def refresh(self, now: float) -> int:
        """Discover and read everything now; a discovery under way is enough. Return the attempt to wait for."""
        for path in sorted(self.poller.resources):
            self.poller.want(path)
        if self.call is not None or self.overdue is not None or not self._expected:
            return self.attempt
        if not self.held:
            self.due = now
        return self.attempt + 1

    def described(self, now: float, message: Described, catalog: Catalog) -> bool:
        """Take the controller's classes if the node's catalog does; true if they were taken.

        Its first discovery then waits for `discover`: the machine knows when what they depend on is known.
        """
        if not self._answers(message.id, "describe"):
            return False
        try:
            classes = known_classes(self.name, message.classes, self._settings)
        except ValueError as problem:
            self._fail(now, f"its class descriptions cannot be used: {problem}")
            return False
        try:
            catalog.add(self.name, [known.description for known in classes.values()])
        except (PluginError, CycleError) as problem:
            self._fail(now, problem.message)
            return False
        self.classes = classes
        self._described = self.held = True
        self.due = None
        return True

    def discover(self, now: float) -> None:
        """Begin the discovery that was held back until what its classes depend on is known."""
        self.held = False
        self._become("described")
        self._begin(now, "discover")

    def discovered(
        self, now: float, message: Discovered, stored: Callable[[str], Mapping[str, Any]] = lambda path: {}
    ) -> None:
        """Check what was found; the machine writes it from `unwritten` and then says `written`.

        `stored` is what the registry has of a path. What was changed since the discovery began stays as it was changed,
        and is looked for once more: the controller may have looked before.
        """
        if not self._answers(message.id, "discover"):
            return
        most = self._settings.most_resources
        if len(message.found) > most:
            self._fail(now, f"found {len(message.found)} resources, at most {most} are taken; nothing was stored")
            return
        checked = checked_found(self._node, self.classes, message.found, message.findings, stored)
        again = bool(self._amended)
        for path in sorted(self._amended):
            polled = self.poller.resources.get(path)
            checked = _with(checked, path, polled.resource if polled is not None else None)
        self._amended.clear()
        self.unwritten = Discovery(checked, message.at, self.attempt)
        self.poller.discovered(
            now, checked.resources, checked.values, {name: known.poll_every for name, known in self.classes.items()}
        )
        self.failures = 0
        self._reading_failed = False
        self._become("discovered")
        self.reason = checked.complaints[0] if checked.complaints else ""
        every = [known.discover_every for known in self.classes.values() if known.discover_every > 0]
        self.due = now if again or message.remembered else now + min(every) if every else None

    def amend(self, now: float, path: str, resource: Resource | None, values: Mapping[str, Any], at: str) -> None:
        """Take over what a change made of one resource (None: it is gone); it is written as a discovery is."""
        known = self.classes[resource.cls] if resource is not None else None
        self.poller.amend(now, path, resource, values, known.poll_every if known is not None else None)
        before = self.unwritten or Discovery(Checked({}, {}, frozenset(self.classes)), at, 0)
        self.unwritten = Discovery(_with(before.checked, path, resource), at, before.attempt)
        if self.overdue is not None or (self.call is not None and self.call.what == "discover"):
            self._amended.add(path)

    def affected(self, now: float, path: str, effects: Collection[str]) -> None:
        """An action may have changed these attributes of a resource: they are read again, or looked for."""
        polled = self.poller.resources.get(path)
        if polled is None or not effects:
            return
        self.poller.want(path)
        declared = [self.classes[polled.resource.cls].description.attribute(name) for name in effects]
        if any(one is not None and one.kind == "persistent" for one in declared):
            if self.call is None and self.overdue is None:
                self.due = now
            else:
                self._amended.add(path)

    def written(self) -> None:
        """What was discovered is in the registry (or was there already)."""
        if self.unwritten is not None and self.unwritten.attempt >= max(self.settled, 1):
            self.settled = self.unwritten.attempt
            self.outcome = "done"
        self.unwritten = None

    def values(self, now: float, message: Values) -> None:
        """Take the attributes of one resource."""
        polled = self.poller.asked_about(message.id)
        known = self.classes.get(polled.resource.cls) if polled is not None else None
        if known is None:
            self.poller.failed(now, message.id, "it is no longer there")
            return
        values, complaint = checked_values(known, message.attributes, message.findings)
        self.poller.answered(now, message.id, values, complaint)
        self.reason = self.reason or complaint

    def call_failed(self, now: float, message: CallFailed) -> None:
        """An order came to nothing: the controller raised, is not there, or the bus gave up."""
        absent = message.code in GONE_CODES
        if self.call is not None and message.id == self.call.id:
            self._fail(now, message.reason if absent else _because(self.call, message.reason), absent=absent)
        elif self.overdue is not None and message.id == self.overdue.id:
            # It was judged at its deadline; now that it has ended, the next try need not wait for it. The controller's
            # own process may have stopped it, and then it knows the line where it hung.
            self.reason = _because(self.overdue, message.reason)
            self.overdue = None
            self.due = now + self._settings.backoff(self.failures)
        else:
            self.poller.failed(now, message.id, message.reason)
            if absent:
                self.gone(now, message.reason)

    def tick(self, now: float) -> list[Effect]:
        """Give up what is past its deadline, begin what is due; return the orders that follow."""
        if self.call is not None and self.call.until <= now:
            call = self.call
            self._fail(now, f"{CALLED[call.what]}: no answer within {call.limit:g} s")
            self.overdue = call
            self.due = now + 2 * call.limit
        if self.call is None and self.due is not None and self.due <= now:
            if self._described:
                self._become("due")
            self._begin(now, "discover" if self._described else "describe")
        reads = self.poller.tick(now) if self._described else []
        self._judge_reads()
        effects = [*self._orders, *reads, *self._report()]
        self._orders.clear()
        return effects

    # --- what follows ---------------------------------------------------------------------------------------

    def _become(self, event: str) -> None:
        after = TRANSITIONS.get((self.state, event))
        if after is None:
            raise ImpossibleTransition(f"controller {self.name}: '{event}' while {self.state} ({self.reason})")
        self.state = after

    def _begin(self, now: float, what: Literal["describe", "discover"]) -> None:
        deadlines = {"describe": self._settings.describe_deadline, "discover": self._settings.discover_deadline}
        self.attempt += 1
        self.call = Call(self._next_id(), what, now + deadlines[what], deadlines[what])
        self.overdue = None
        self.due = None
        self._amended.clear()
        order = Describe(self.call.id) if what == "describe" else Discover(self.call.id)
        self._orders.append(Send(Address(f"controller.{self.name}"), order))

    def _answers(self, answer: str, what: str) -> bool:
        """Whether `answer` is that of the call under way, or of the overdue one; either is then over."""
        call = self.call or self.overdue
        if call is None or call.id != answer or call.what != what:
            return False
        self.call = self.overdue = None
        return True

    def _fail(self, now: float, reason: str, absent: bool = False) -> None:
        self._become("failed")
        self.reason = reason
        self.call = self.overdue = None
        self.failures += 1
        self.due = now + self._settings.backoff(self.failures)
        self._reading_failed = False
        if absent:
            self._described = self.held = False
            self.poller.stop()
        self.settled = self.attempt
        self.outcome = "failed"

    def _judge_reads(self) -> None:
        if self.state == "running" and self.poller.all_fail:
            self._become("failed")
            self.reason = self.poller.reason
            self._reading_failed = True
        elif self.state == "failed" and self._reading_failed and not self.poller.all_fail:
            self._become("recovered")
            self.reason = ""
            self._reading_failed = False

    def _report(self) -> list[Effect]:
        """Tell when the controller runs or fails. One that failed counts as failed until a discovery succeeded."""
        healing = self.state == "discovering" and self._reported is not None and self._reported[0] == "failed"
        if self.state == "starting" or healing:
            return []
        state = "failed" if self.state == "failed" else "running"
        report = (state, self.reason or ("" if state == "failed" else self.poller.reason), tuple(sorted(self.classes)))
        if report == self._reported:
            return []
        self._reported = report
        body = {"name": self.name, "state": report[0], "reason": report[1], "classes": list(report[2])}
        return [Notify("plugin_state", body)]


def _with(checked: Checked, path: str, resource: Resource | None) -> Checked:
    """Return what is to be written, with one resource as it is now; None: it is gone."""
    resources = {found: one for found, one in checked.resources.items() if found != path}
    removed = checked.removed - {path} if resource is not None else checked.removed | {path}
    if resource is not None:
        resources[path] = resource
    return msgspec.structs.replace(checked, resources=resources, removed=removed)


def _because(call: Call, reason: str) -> str:
    return f"discover: {reason}" if call.what == "discover" and not reason.startswith("discover") else reason

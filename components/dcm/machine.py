"""The life of a node: defined or not, offline, joining, online, leaving, as one table (SPEC 2.3, 2.4, 4, 5.2).

Decides which component is started or stopped when, what a verdict leads to, and what a crash does. Knows no process,
bus or file: all of that is ordered by effects, and what came of it arrives as inputs. One machine lives as long as
the daemon; each join has a new boot id, given with the input that leads to it.

States: new → undefined | offline | failed | checking → starting → configuring → online, and leaving back to offline,
undefined or failed. *checking* ends with the verdict (step 7), *starting* when every needed function is ready,
*configuring* when discovery was given its time and Liveness knows (SPEC 6.4).

Invariants: 1. A component runs only in a joining state, online or leaving. 2. Local storage is erased only after a
verdict 2 or 4, with nothing running. 3. The node is announced only after verdict 1, or 3 carried out. 4. Components
stop in the reverse order of their starts, one after the other.

A move to another cluster (`move.py`) is one `Switch`: a leaving and a joining, with the processes kept in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ...bus.machine import ImpossibleTransition
from .identity import Verdict, judge
from .life import (
    Announce,
    Announced,
    AskVerdict,
    Begin,
    CloneTold,
    CloseFunctions,
    ComeBack,
    ComponentExited,
    ComponentFailed,
    ComponentStarted,
    ComponentStopped,
    ControllersAsked,
    ControllersReady,
    Crashed,
    Defined,
    Discover,
    DiscoveryDone,
    Effect,
    Erased,
    EraseLocal,
    FunctionReady,
    GlobalRead,
    Input,
    KeepOffline,
    Leave,
    Left,
    OfflineAsked,
    OnlineAsked,
    OpenFunctions,
    Plan,
    ReadGlobal,
    RecordStep,
    RefreshLocal,
    Removed,
    Replaced,
    ReplaceIdentity,
    StartComponent,
    Started,
    State,
    StateChanged,
    StopComponent,
    Switch,
    Undefined,
)
from .settings import (
    ANNOUNCE_AGAIN,
    ASK_VERDICT,
    BACK_OFF,
    CONTROLLER_BACK_OFF,
    CONTROLLERS_TIME,
    CRASH_WINDOW,
    CRASHES,
    LEAVE_TIME,
    READ_AGAIN,
    STOP_TIME,
    TRIES_WINDOW,
    TRY_AGAIN,
)

REQUIRED = ("liveness", "groups", "registry.writes", "resources")
START_STEPS = {"registry": 1, "liveness": 2, "groups": 3, "resources": 4}


class NodeMachine:
    """One node's life. `state` and `reason` are for people; `verdict` is the last one given."""

    def __init__(self, plan: Plan) -> None:
        self.state: State = "new"
        self.reason = ""
        self.boot_id = ""
        self.verdict: Verdict | None = None
        self.ready: set[str] = set()
        self.running: list[str] = []  # in the order of their starts
        self._plan = plan
        self._server = False
        self._queue: list[str] = []
        self._up: set[str] = set()
        self._stepped: set[int] = set()
        self._controllers_up = False
        self._discovering = False
        self._crashes: dict[str, list[float]] = {}
        self._gave_up: list[float] = []  # when crashes were too many
        self._pause = 0.0  # seconds until a node that failed so tries again, 0: it does not by itself
        self._asking = ASK_VERDICT[0]  # seconds until others are asked how this node's definition stands
        self._timers: dict[str, float] = {}
        self._waited = ""
        self._unreplaced = False
        self._after: tuple[State, str] = ("offline", "")
        self._next_boot = ""
        self._keep = False  # what stops is only put to rest: the node goes from one cluster to another
        self._story: list[str] = []

    @property
    def deadline(self) -> float | None:
        """When to call `step` without an input."""
        return min(self._timers.values(), default=None)

    @property
    def waiting_for(self) -> list[str]:
        """What the join is waiting for just now, in words."""
        if self.state == "checking":
            return ["registry.reads"] if "registry.reads" not in self.ready else [self.reason or "the verdict"]
        return [function for function in self._required() if function not in self.ready]

    def step(self, now: float, input: Input | None = None) -> list[Effect]:
        """Take one input (None: a deadline came) and return what must be done, in order."""
        if input is None:
            return self._tick(now)
        self._story = [*self._story[-20:], f"{self.state} + {type(input).__name__}"]
        does = _TABLE[type(input)].get(self.state)
        if does is None:
            raise ImpossibleTransition("node: " + ", ".join(self._story))
        return does(self, now, input)

    def check_invariants(self) -> None:
        """Raise AssertionError when the state is not sound."""
        if self.state in ("new", "undefined", "offline", "failed"):
            assert not self.running, f"{self.state}, and {self.running} run"
            assert not self.ready, f"{self.state}, and {self.ready} are ready"
        if self.state in ("starting", "configuring", "online"):
            assert self.verdict is not None and self.verdict.scenario in (1, 3), f"{self.state} after {self.verdict}"

    # --- into the cluster -------------------------------------------------------------------------------------

    def _started(self, now: float, input: Started) -> list[Effect]:
        if input.problem:
            return [self._enter("failed", input.problem)]
        if not input.defined:
            return [self._enter("undefined")]
        if input.offline:
            return [self._enter("offline", "an operator put it offline")]
        return self._join(now, input.server, input.boot_id)

    def _online_asked(self, now: float, input: OnlineAsked | Defined) -> list[Effect]:
        kept: list[Effect] = [KeepOffline(False)] if isinstance(input, OnlineAsked) else []
        return [*kept, *self._join(now, input.server, input.boot_id)]

    def _join(self, now: float, server: bool, boot_id: str) -> list[Effect]:
        self.boot_id, self._server = boot_id, server
        self.verdict, self._waited = None, ""
        self._unreplaced = self._controllers_up = self._discovering = False
        self._crashes.clear()
        self._timers.clear()
        self.ready.clear()
        self._up.clear()
        self._stepped.clear()
        self.running = []
        self._queue = list(self._plan.order)
        self._asking = ASK_VERDICT[0]
        self._timers["verdict"] = now + self._asking
        return [self._enter("checking"), Begin(boot_id), *self._start_next()]

    def _start_next(self) -> list[Effect]:
        if not self._queue:
            return []
        name = self._queue.pop(0)
        self.running.append(name)
        return [StartComponent(name)]

    def _component_started(self, _now: float, input: ComponentStarted) -> list[Effect]:
        if input.name not in self.running or input.name in self._up:
            return []
        self._up.add(input.name)
        number = START_STEPS.get(input.name)
        steps: list[Effect] = []
        if number and number not in self._stepped:
            self._stepped.add(number)
            how = "remote" if input.name == "registry" and not self._server else "done"
            steps = [RecordStep(number, f"started {input.name}", how)]
        return [*steps, *(self._start_next() if input.name == self.running[-1] else [])]

    def _function_ready(self, now: float, input: FunctionReady) -> list[Effect]:
        again = input.function in self.ready
        self.ready.add(input.function)
        if self.state == "checking" and input.function == "registry.reads":
            self._timers.pop("read", None)
            return [ReadGlobal()]
        if self.state == "online" and not again and input.function == "liveness":
            return [Announce()]
        if self.state == "online" and not again and input.function == "resources":
            return [Discover()]
        more: list[Effect] = []
        if self._unreplaced and input.function == "registry.writes" and self.verdict and self.verdict.original:
            more = [ReplaceIdentity(self.verdict.original)]
        return [*more, *self._configure(now)]

    def _global_read(self, now: float, input: GlobalRead) -> list[Effect]:
        verdict = judge(
            input.original,
            input.local,
            input.global_,
            known=input.known,
            why=input.why,
            replacement=input.replacement,
            elsewhere=input.elsewhere,
        )
        self.verdict = verdict
        if verdict.action == "wait":
            return self._wait(now, verdict.reason)
        self._timers.pop("verdict", None)
        told = f"scenario {verdict.scenario}: {verdict.reason}" if verdict.scenario else verdict.reason
        steps: list[Effect] = [RecordStep(6), RecordStep(7, told, "done" if verdict.scenario in (1, 3) else "failed")]
        if verdict.action == "join":
            return [*steps, RefreshLocal(), *self._judged(now)]
        if verdict.action == "replace":
            assert verdict.original is not None
            return [*steps, ReplaceIdentity(verdict.original)]
        after: tuple[State, str] = ("undefined" if verdict.action == "erase" else "failed", verdict.reason)
        return [*steps, *self._stop_all(now, after)]

    def _wait(self, now: float, reason: str) -> list[Effect]:
        self._timers["read"] = now + READ_AGAIN
        if reason == self._waited:
            return []
        self._waited = reason
        step = RecordStep(7 if "registry.reads" in self.ready else 6, reason, "waiting")
        return [self._enter("checking", reason), step]

    def _replaced(self, now: float, input: Replaced) -> list[Effect]:
        """Scenario 3 was carried out, or cannot be yet: then the join goes on as far as it needs to open the writes."""
        if input.taken:
            return self._stop_all(now, ("failed", input.taken))
        self._unreplaced = not input.done
        if self._unreplaced and "registry.writes" in self.ready:
            self._timers["replace"] = now + READ_AGAIN
        return [RefreshLocal(), *self._judged(now)] if self.state == "checking" else self._configure(now)

    def _judged(self, now: float) -> list[Effect]:
        self.ready |= {"dcm.local", "dcm.join"}
        return [self._enter("starting"), OpenFunctions(("dcm.join", "dcm.local")), *self._configure(now)]

    # --- configuring ------------------------------------------------------------------------------------------

    def _required(self) -> list[str]:
        return [function for function in REQUIRED if function in self._plan.functions]

    def _configure(self, now: float) -> list[Effect]:
        if self.state != "starting" or self._unreplaced or any(f not in self.ready for f in self._required()):
            return []
        entered = self._enter("configuring")
        if self._controllers_up:
            return [entered, *self._discover(now)]
        self._timers["controllers"] = now + CONTROLLERS_TIME
        return [entered]

    def _controllers_asked(self, _now: float, input: ControllersAsked) -> list[Effect]:
        new = [name for name in input.names if name not in self.running]
        self.running += new
        return [StartComponent(name) for name in new]

    def _controllers_ready(self, now: float, _input: ControllersReady) -> list[Effect]:
        self._controllers_up = True
        return self._discover(now)

    def _discover(self, now: float) -> list[Effect]:
        self._timers.pop("controllers", None)
        if self.state != "configuring" or self._discovering:
            return []
        self._discovering = True
        self._timers["discovery"] = now + self._plan.discovery_wait
        return [Discover()]

    def _discovered(self, _now: float, _input: DiscoveryDone | None = None) -> list[Effect]:
        waited = self._timers.pop("discovery", None)
        return [Announce()] if waited is not None else []

    def _announced(self, now: float, input: Announced) -> list[Effect]:
        if not input.done:
            self._timers["announce"] = now + ANNOUNCE_AGAIN
            return []
        return [self._enter("online")] if self.state == "configuring" else []

    # --- crashes ----------------------------------------------------------------------------------------------

    def _exited(self, now: float, input: ComponentExited | ComponentFailed) -> list[Effect]:
        name = input.name
        if name not in self.running:
            return []
        self._up.discard(name)
        lost = [function for function in self._plan.functions_of(name) if function in self.ready]
        self.ready.difference_update(lost)
        effects: list[Effect] = [Crashed(name, getattr(input, "status", 0), input.reason)]
        effects += [CloseFunctions(tuple(sorted(lost)))] if lost else []
        recent = [at for at in self._crashes.get(name, []) if now - at < CRASH_WINDOW]
        self._crashes[name] = [*recent, now]
        essential = name in self._plan.order
        if essential and len(recent) + 1 >= CRASHES:
            return [*effects, *self._give_up(now, f"{name} crashed {CRASHES} times within", input.reason)]
        shortest, longest = BACK_OFF if essential else CONTROLLER_BACK_OFF
        self._timers[f"restart {name}"] = now + min(shortest * 2 ** len(recent), longest)
        # the start of the next one waited for this one: a crash must not hold the rest back
        return [*effects, *(self._start_next() if self.running[-1] == name else [])]

    def _give_up(self, now: float, what: str, reason: str) -> list[Effect]:
        """Out of the cluster for a while: whatever makes a component crash, a full disk say, may be over then."""
        self._gave_up = [*(at for at in self._gave_up if now - at < TRIES_WINDOW), now]
        pause = min(TRY_AGAIN[0] * 2 ** (len(self._gave_up) - 1), TRY_AGAIN[1])
        why = f"{what} {CRASH_WINDOW:g} s: {reason}; the node tries again after {pause:g} s"
        effects = self._stop_all(now, ("failed", why))
        self._pause = pause
        return effects

    # --- out of the cluster -----------------------------------------------------------------------------------

    def _offline_asked(self, now: float, input: OfflineAsked) -> list[Effect]:
        kept: list[Effect] = [KeepOffline(True)] if input.operator else []
        return [*kept, *self._go(now, ("offline", input.reason))]

    def _removed(self, now: float, input: Removed) -> list[Effect]:
        """The others go on without this boot: it ends, and the node comes back as a new one."""
        self._next_boot, self._server = input.boot_id, input.server
        return self._stop_all(now, ("checking", input.reason))

    def _switch(self, now: float, input: Switch) -> list[Effect]:
        """To another cluster, by the way of any other leaving; the processes stay."""
        self._next_boot, self._server = input.boot_id, input.server
        if not self.running:
            return self._join(now, input.server, input.boot_id)
        return self._go(now, ("checking", input.reason), keep=True)

    def _switch_later(self, _now: float, input: Switch) -> list[Effect]:
        if self._after[0] != "undefined":
            self._after = ("checking", input.reason)
            self._next_boot, self._server = input.boot_id, input.server
        return []

    def _clone(self, now: float, input: CloneTold) -> list[Effect]:
        assert self.verdict is not None
        self.verdict = msgspec.structs.replace(
            self.verdict, scenario=None, action="refuse", reason=input.reason, code="identity.clone"
        )
        return self._stop_all(now, ("failed", input.reason))

    def _go(self, now: float, after: tuple[State, str], keep: bool = False) -> list[Effect]:
        if "liveness" not in self.ready:
            return self._stop_all(now, after, keep)
        self._after, self._keep = after, keep
        self._timers.clear()
        self._timers["leave"] = now + LEAVE_TIME
        return [self._enter("leaving", after[1]), Leave()]

    def _left(self, now: float, _input: Left | None = None) -> list[Effect]:
        return self._stop_all(now, self._after, self._keep) if "leave" in self._timers else []

    def _stop_all(self, now: float, after: tuple[State, str], keep: bool = False) -> list[Effect]:
        self._after, self._pause, self._keep = after, 0.0, keep
        self._timers.clear()
        self._queue = []
        gone = tuple(sorted(self.ready))
        self.ready.clear()
        entered = [self._enter("leaving", after[1])] if self.state != "leaving" else []
        return [*entered, *([CloseFunctions(gone)] if gone else []), *self._stop_next(now)]

    def _stop_next(self, now: float) -> list[Effect]:
        if self.running:
            return [StopComponent(self.running[-1], STOP_TIME, self._keep)]
        state, reason = self._after
        if state == "undefined":
            assert self.verdict is not None and self.verdict.scenario in (2, 4)
            return [EraseLocal(self.verdict)]
        if state == "checking":
            return self._join(now, self._server, self._next_boot)
        if state == "failed" and self._pause:
            self._timers["come back"] = now + self._pause
        return [self._enter(state, reason)]

    def _stopped(self, now: float, input: ComponentStopped) -> list[Effect]:
        if not self.running or self.running[-1] != input.name:
            return []
        self.running.pop()
        self._up.discard(input.name)
        return self._stop_next(now)

    def _erased(self, _now: float, _input: Erased) -> list[Effect]:
        return [self._enter("undefined", self._after[1])]

    def _online_later(self, _now: float, input: OnlineAsked) -> list[Effect]:
        if self._after[0] == "undefined":
            return []
        self._after, self._next_boot, self._server = ("checking", "asked to go online"), input.boot_id, input.server
        return [KeepOffline(False)]

    def _stay_offline(self, _now: float, input: OfflineAsked) -> list[Effect]:
        return [KeepOffline(True)] if input.operator else []

    def _undefined(self, _now: float, _input: Undefined) -> list[Effect]:
        self._timers.clear()
        return [self._enter("undefined")]

    def _offline_now(self, _now: float, input: OfflineAsked) -> list[Effect]:
        if self._after[0] != "undefined":
            self._after = ("offline", input.reason)
        return [KeepOffline(True)] if input.operator else []

    # --- time and helpers -------------------------------------------------------------------------------------

    def _tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for name in sorted(name for name, at in self._timers.items() if at <= now):
            if name not in self._timers:
                continue  # an earlier one of this round ended it
            if name.startswith("restart "):
                del self._timers[name]
                effects.append(StartComponent(name.removeprefix("restart ")))
            elif name == "read":
                del self._timers[name]
                effects += [ReadGlobal()] if "registry.reads" in self.ready else []
            elif name == "verdict":
                self._asking = min(2 * self._asking, ASK_VERDICT[1])
                self._timers[name] = now + self._asking
                effects.append(AskVerdict())
            elif name == "replace" and self.verdict is not None and self.verdict.original is not None:
                del self._timers[name]
                effects.append(ReplaceIdentity(self.verdict.original))
            elif name == "controllers":
                effects += self._discover(now)
            elif name == "discovery":
                effects += self._discovered(now)
            elif name == "announce":
                del self._timers[name]
                effects.append(Announce())
            elif name == "leave":
                effects += self._left(now)
            elif name == "come back":
                del self._timers[name]
                effects.append(ComeBack())
        return effects

    def _enter(self, state: State, reason: str = "") -> StateChanged:
        self.state, self.reason = state, reason
        return StateChanged(state, reason)

    def _nothing(self, _now: float, _input: Any) -> list[Effect]:
        return []


_Do = Callable[[NodeMachine, float, Any], list[Effect]]
_IDLE: tuple[State, ...] = ("undefined", "offline", "failed")
_IN: tuple[State, ...] = ("checking", "starting", "configuring", "online")


def _row(does: dict[tuple[State, ...], _Do], *, late: tuple[State, ...] = ()) -> dict[State, _Do]:
    """One row of the table: what an input does in each state; `late` are states it may come to too late to matter."""
    row: dict[State, _Do] = dict.fromkeys(late, NodeMachine._nothing)
    row.update({state: do for states, do in does.items() for state in states})
    return row


_M = NodeMachine
_TABLE: dict[type[Any], dict[State, _Do]] = {
    Started: _row({("new",): _M._started}),
    Defined: _row({_IDLE: _M._online_asked}, late=(*_IN, "leaving")),
    OnlineAsked: _row({_IDLE: _M._online_asked, ("leaving",): _M._online_later}, late=_IN),
    OfflineAsked: _row(
        {(*_IN, "failed"): _M._offline_asked, ("leaving",): _M._offline_now, ("offline",): _M._stay_offline},
        late=("undefined",),
    ),
    Switch: _row({(*_IDLE, *_IN): _M._switch, ("leaving",): _M._switch_later}),
    Undefined: _row({_IDLE: _M._undefined}),
    Removed: _row({("starting", "configuring", "online"): _M._removed}, late=(*_IDLE, "checking", "leaving")),
    CloneTold: _row({("starting", "configuring", "online"): _M._clone}, late=(*_IDLE, "checking", "leaving")),
    ComponentStarted: _row({_IN: _M._component_started}, late=(*_IDLE, "leaving")),
    ComponentFailed: _row({_IN: _M._exited}, late=(*_IDLE, "leaving")),
    ComponentExited: _row({_IN: _M._exited}, late=(*_IDLE, "leaving")),
    ComponentStopped: _row({("leaving",): _M._stopped}, late=(*_IDLE, *_IN)),
    FunctionReady: _row({_IN: _M._function_ready}, late=(*_IDLE, "leaving")),
    GlobalRead: _row({("checking",): _M._global_read}, late=(*_IDLE, *_IN, "leaving")),
    Replaced: _row({_IN: _M._replaced}, late=(*_IDLE, "leaving")),
    ControllersAsked: _row(
        {("starting", "configuring", "online"): _M._controllers_asked}, late=(*_IDLE, "checking", "leaving")
    ),
    ControllersReady: _row({_IN: _M._controllers_ready}, late=(*_IDLE, "leaving")),
    DiscoveryDone: _row({("configuring",): _M._discovered}, late=(*_IDLE, *_IN, "leaving")),
    Announced: _row({("configuring", "online"): _M._announced}, late=(*_IDLE, *_IN, "leaving")),
    Left: _row({("leaving",): _M._left}, late=(*_IDLE, *_IN)),
    Erased: _row({("leaving",): _M._erased}),
}

"""Move a node from one of its clusters to another (SPEC 7.2), as one machine with its table.

Decides the order of what is written down and what is done; `machine.py` does the leaving and the joining, `mover.py`
carries out the rest. The two pointers tell how far it is: target is the cluster in which the node is, or which it goes
to; current follows when it is online there. So whatever ends the daemon in between, it comes back into the target, and
if that does not have it in time, into the current one.

    idle ─ asked ─▶ checking (m1) ─▶ pointing (m2) ─▶ moving (m3 m4 m5) ─ online ─▶ following (m6) ─▶ idle
                                                        └─ refused, or too late ─▶ reverting ─▶ returning ─▶ idle
                                  └─ not written ─▶ reverting ─▶ idle

Invariants: 1. The node is never sent to a cluster that the target pointer on the disk does not name. 2. Current is
written only when the node is online in the target. 3. The request is answered once, after the last write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from ...bus.machine import ImpossibleTransition
from ...errors import CoveyError, MoveFailed
from .life import State as NodeState
from .settings import MOVE_TIME, POINT_AGAIN

State = Literal["idle", "checking", "pointing", "moving", "following", "reverting", "returning"]

STEPS = {
    "m1": "the target has this node and answers",
    "m2": "the target pointer is written",
    "m3": "the old cluster is left, every component is at rest",
    "m4": "every component begins anew, the target's registry has been read",
    "m5": "online in the target",
    "m6": "the current pointer has followed",
}
"""What has been done when a step is told."""

AT_REST: tuple[NodeState, ...] = ("undefined", "offline", "failed")


# --- inputs ---------------------------------------------------------------------------------------------------


class Asked(msgspec.Struct, frozen=True):
    """Somebody wants this node in `target`. `offline`: an operator put it offline, and so it is after a failure."""

    current: str | None
    target: str
    force: bool = False
    offline: bool = False


class Found(msgspec.Struct, frozen=True):
    """The daemon starts, and the pointers differ: it ended in the middle of a move."""

    current: str | None
    target: str
    offline: bool = False


class Checked(msgspec.Struct, frozen=True):
    """The target may be moved to, or why not."""

    problem: CoveyError | None = None


class Pointed(msgspec.Struct, frozen=True):
    """The pointers are written and synced, or why not."""

    problem: str = ""


class NodeIs(msgspec.Struct, frozen=True):
    """How the node's life stands, and in which cluster it is or joins."""

    state: NodeState
    cluster: str
    reason: str = ""


Input = Asked | Found | Checked | Pointed | NodeIs

# --- effects --------------------------------------------------------------------------------------------------


class Check(msgspec.Struct, frozen=True):
    """See whether the target can be moved to (m1): `Checked`."""

    target: str
    force: bool


class Point(msgspec.Struct, frozen=True):
    """Write both pointers, in one write: `Pointed`. `online`: the operator's word "offline" is over with it."""

    current: str | None
    target: str | None
    online: bool = False


class Go(msgspec.Struct, frozen=True):
    """Let the node leave where it is, and join the cluster of the target pointer."""

    reason: str


class Rest(msgspec.Struct, frozen=True):
    """Let the node go offline, as it was before."""

    reason: str


class At(msgspec.Struct, frozen=True):
    """A step was done."""

    step: str


class Ended(msgspec.Struct, frozen=True):
    """The move is over: the node is in the target, or `problem` says why it is where it was."""

    current: str | None
    target: str
    problem: CoveyError | None = None


Effect = Check | Point | Go | Rest | At | Ended


class MoveMachine:
    """The moves of one node, one at a time."""

    def __init__(self) -> None:
        self.state: State = "idle"
        self.current: str | None = None
        self.target = ""
        self.reached: list[str] = []
        self._offline = False
        self._until: float | None = None
        self._problem: CoveyError | None = None
        self._story: list[str] = []

    @property
    def deadline(self) -> float | None:
        """When to call `step` without an input."""
        return self._until

    def step(self, now: float, input: Input | None = None) -> list[Effect]:
        """Take one input (None: the deadline came) and return what must be done, in order."""
        self._story = [*self._story[-20:], f"{self.state} + {type(input).__name__}"]
        does = _TABLE[type(input)].get(self.state)
        if does is None:
            raise ImpossibleTransition("move: " + ", ".join(self._story))
        return does(self, now, input)

    # --- there ------------------------------------------------------------------------------------------------

    def _asked(self, now: float, input: Asked) -> list[Effect]:
        self._begin("checking", input)
        return [Check(input.target, input.force)]

    def _found(self, now: float, input: Found) -> list[Effect]:
        """The daemon joins the target by itself; it has as much time for it as a move."""
        self._begin("moving", input)
        self._until = now + MOVE_TIME
        self.reached = ["m1", "m2"]
        return []

    def _begin(self, state: State, input: Asked | Found) -> None:
        self.state, self.current, self.target, self._offline = state, input.current, input.target, input.offline
        self.reached, self._problem, self._until = [], None, None

    def _checked(self, _now: float, input: Checked) -> list[Effect]:
        if input.problem is not None:
            return self._end(input.problem)
        self.state = "pointing"
        return [*self._at("m1"), Point(self.current, self.target)]

    def _pointed(self, now: float, input: Pointed) -> list[Effect]:
        if input.problem:  # nobody knows what is on the disk now: it is made sure of
            self._problem = self._failed(f"the target pointer cannot be written: {input.problem}")
            return self._revert()
        self.state, self._until = "moving", now + MOVE_TIME
        return [*self._at("m2"), Go("this node moves to another cluster")]

    def _node_is(self, _now: float, input: NodeIs) -> list[Effect]:
        """Follow the node on its way; one that ends up anywhere else than in the target is taken back."""
        if "m3" not in self.reached and input.state == "leaving":
            return []
        if input.state in AT_REST:
            self._offline = input.state == "offline"
            why = f": {input.reason}" if input.reason else ""
            self._problem = self._failed(f"the node became {input.state} there{why}")
            return self._revert()
        if input.cluster != self.target:
            return []
        effects = self._at("m3")
        if input.state in ("starting", "configuring", "online"):
            effects += self._at("m4")
        if input.state == "online":
            effects += self._at("m5")
            effects += self._follow()
        return effects

    def _follow(self) -> list[Effect]:
        self.state, self._until = "following", None
        return [Point(self.target, self.target, online=True)]

    def _followed(self, now: float, input: Pointed) -> list[Effect]:
        if input.problem:
            self._until = now + POINT_AGAIN
            return []
        return [*self._at("m6"), *self._end(None)]

    # --- and back ---------------------------------------------------------------------------------------------

    def _too_late(self, _now: float, _input: None) -> list[Effect]:
        self._problem = self._failed(f"the node was not online there within {MOVE_TIME:g} s")
        return self._revert()

    def _revert(self) -> list[Effect]:
        self.state, self._until = "reverting", None
        return [Point(self.current, self.current)]

    def _reverted(self, now: float, input: Pointed) -> list[Effect]:
        if input.problem:
            self._until = now + POINT_AGAIN
            return []
        assert self._problem is not None
        if "m2" not in self.reached:  # it has not left: on a full disk it could leave, but not come back
            return self._end(self._problem)
        self.state, self._until = "returning", now + MOVE_TIME
        if self._offline or self.current is None:
            return [Rest(self._problem.message)]
        return [Go("this node goes back to the cluster from which it was to be moved")]

    def _node_came(self, _now: float, input: NodeIs) -> list[Effect]:
        """Answer when the node is where it was, or when it is clear how that ends."""
        there = input.state == "online" and input.cluster == self.current
        return self._end(self._problem) if there or input.state in AT_REST else []

    def _came_late(self, _now: float, _input: None) -> list[Effect]:
        return self._end(self._problem)

    # --- helpers ----------------------------------------------------------------------------------------------

    def _again(self, _now: float, _input: None) -> list[Effect]:
        self._until = None
        return self._follow() if self.state == "following" else self._revert()

    def _nothing(self, _now: float, _input: Any) -> list[Effect]:
        return []

    def _at(self, step: str) -> list[Effect]:
        if step in self.reached:
            return []
        self.reached.append(step)
        return [At(step)]

    def _failed(self, why: str) -> CoveyError:
        done = STEPS[self.reached[-1]] if self.reached else "nothing was done"
        return MoveFailed(
            f"the move did not get further than {self.reached[-1] if self.reached else 'its request'} ({done}): {why}",
            "the node goes back to where it was; `covey node boot-log` of then and its log say more",
        )

    def _end(self, problem: CoveyError | None) -> list[Effect]:
        self.state, self._until = "idle", None
        return [Ended(self.current, self.target, problem)]


_M = MoveMachine
_Do = Callable[[MoveMachine, float, Any], list[Effect]]
_ALL: tuple[State, ...] = ("idle", "checking", "pointing", "moving", "following", "reverting", "returning")
_TABLE: dict[type[Any], dict[State, _Do]] = {
    Asked: {"idle": _M._asked},
    Found: {"idle": _M._found},
    Checked: {"checking": _M._checked},
    Pointed: {"pointing": _M._pointed, "following": _M._followed, "reverting": _M._reverted},
    NodeIs: {**dict.fromkeys(_ALL, _M._nothing), "moving": _M._node_is, "returning": _M._node_came},
    type(None): {"moving": _M._too_late, "following": _M._again, "reverting": _M._again, "returning": _M._came_late},
}

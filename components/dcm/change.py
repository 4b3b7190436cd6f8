"""Change what the registry says of a definition, or end it: two small machines that compare, write and try again.

`Change` reads, lets a pure function decide what to write, and writes it compared with what was read; somebody else's
change in between makes it look once more. `UndefineMember` is the member's side of an undefine (SPEC 4): the node goes
offline, then one transaction leaves the tombstone, then the node is told, which erases nothing on anybody's word. Both
know no bus and no registry. Steps: c1 to c3, u1 to u3 and u6 (`crash.STEPS` has them in words).

Invariants: 1. The registry is written only after a read that allowed it. 2. A node is told only after the tombstone is
there. 3. `Finish` is the last effect and comes once. 4. Asked again after any end, the outcome is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from ...bus.machine import ImpossibleTransition
from ...errors import CoveyError, NodeOnline, NotFound, Refused
from .definitions import NodeDefinition, ServerList
from .entries import NodeEntry, Transaction, undefine

ROUNDS = 5
"""Times that somebody else may be quicker, until it is given up."""

# --- inputs ---------------------------------------------------------------------------------------------------


class Begun(msgspec.Struct, frozen=True):
    """The request came in."""


class Read(msgspec.Struct, frozen=True):
    """What a current read of the registry gave: whatever the decision needs."""

    found: Any


class Wrote(msgspec.Struct, frozen=True):
    """The registry decided over the transaction: written, or something in it was changed by somebody else."""

    succeeded: bool


class Went(msgspec.Struct, frozen=True):
    """The node is out of the view."""


class Told(msgspec.Struct, frozen=True):
    """The node was told, and has erased its data; or it could not be told, or does not yet."""

    erased: bool


class Failed(msgspec.Struct, frozen=True):
    """What was ordered last could not be done, or nobody knows whether it was."""

    error: CoveyError


Input = Begun | Read | Wrote | Went | Told | Failed

# --- effects --------------------------------------------------------------------------------------------------


class Look(msgspec.Struct, frozen=True):
    """Read the registry, current, about this node if one is meant: `Read`, or `Failed`."""

    number: int = 0


class Write(msgspec.Struct, frozen=True):
    """Write this: `Wrote`, or `Failed`."""

    transaction: Transaction


class PutOffline(msgspec.Struct, frozen=True):
    """Have the node leave in order, and wait until the view does not list it: `Went`, or `Failed`."""

    number: int


class Tell(msgspec.Struct, frozen=True):
    """Tell the node that its definition is over: `Told`."""

    node: NodeDefinition


class At(msgspec.Struct, frozen=True):
    """A step was reached."""

    step: str


class Finish(msgspec.Struct, frozen=True):
    """It is over: with this result, or why not."""

    result: Any = None
    error: CoveyError | None = None


Effect = Look | Write | PutOffline | Tell | At | Finish
State = Literal["new", "reading", "leaving", "writing", "telling", "done"]


class Change:
    """One change of a definition. Give it `Begun`, perform its effects, stop at `Finish`.

    `decide` gets what was read and returns what to write (None: it is so already) and the result; it raises why not.
    """

    def __init__(self, decide: Callable[[Any], tuple[Transaction | None, Any]], what: str) -> None:
        self.state: State = "new"
        self._decide = decide
        self._what = what
        self._result: Any = None
        self._rounds = 0

    def step(self, input: Input) -> list[Effect]:
        """Take one input and return what must be done, in order."""
        match self.state, input:
            case "new", Begun():
                self.state = "reading"
                return [At("c1"), Look()]
            case "reading", Read(found):
                try:
                    wanted, self._result = self._decide(found)
                except CoveyError as why:
                    return self._over(why)
                if wanted is None:
                    return self._over()
                self.state = "writing"
                return [At("c2"), Write(wanted)]
            case "writing", Wrote(succeeded):
                if succeeded:
                    return [At("c3"), *self._over()]
                self._rounds += 1
                if self._rounds >= ROUNDS:
                    return self._over(Refused(f"{self._what} changes too fast", "ask again"))
                self.state = "reading"
                return [Look()]
            case (("reading" | "writing"), Failed(error)):
                return self._over(error)
        raise ImpossibleTransition(f"change: {self.state} + {type(input).__name__}")

    def _over(self, error: CoveyError | None = None) -> list[Effect]:
        self.state = "done"
        return [Finish(None if error else self._result, error)]


class Standing(msgspec.Struct, frozen=True):
    """What an undefine must know: the node's entry (None: not listed), whether it is in the view, the servers."""

    entry: NodeEntry | None
    online: bool
    servers: ServerList


class UndefineMember:
    """One undefine, seen from the member with the number `own`. Give it `Begun`, stop at `Finish`."""

    def __init__(self, number: int, own: int) -> None:
        self.state: State = "new"
        self.number = number
        self._own = own
        self._entry: NodeEntry | None = None
        self._rounds = 0

    def step(self, input: Input) -> list[Effect]:
        """Take one input and return what must be done, in order."""
        match self.state, input:
            case "new", Begun():
                self.state = "reading"
                return [At("u1"), Look(self.number)]
            case "reading", Read(found):
                return self._read(found)
            case "leaving", Went():
                return [At("u2"), *self._write()]
            case "writing", Wrote(succeeded):
                return self._wrote(succeeded)
            case "telling", Told(erased):
                return [*([At("u6")] if erased else []), *self._over(erased)]
            case (("reading" | "leaving" | "writing"), Failed(error)):
                return self._over(False, error)
        raise ImpossibleTransition(f"undefine {self.number}: {self.state} + {type(input).__name__}")

    def _read(self, found: Standing) -> list[Effect]:
        if found.entry is None:
            if self._entry is not None:
                return self._tell()  # somebody else was quicker
            return self._over(
                False, NotFound(f"no node has the number {self.number}", "`covey node ls` lists the nodes")
            )
        if self._entry is not None and found.entry.definition.definition_id != self._entry.definition.definition_id:
            return self._tell()  # it was undefined, and defined again: that one is not meant
        self._entry = found.entry
        if self.number in found.servers.all:
            last = found.servers.servers == (self.number,)
            return self._over(
                False,
                Refused(
                    f"node {self.number} is {'the last' if last else 'a'} registry server",
                    f"`covey registry define-server` another node first, then `covey registry undefine-server "
                    f"{self.number}`"
                    if last
                    else f"`covey registry undefine-server {self.number}` first",
                ),
            )
        if self.number == self._own:
            return self._over(
                False,
                NodeOnline(
                    "this node is online itself",
                    "ask another node of the cluster: covey --state … node undefine",
                ),
            )
        if found.online:
            self.state = "leaving"
            return [PutOffline(self.number)]
        return self._write()

    def _write(self) -> list[Effect]:
        assert self._entry is not None
        self.state = "writing"
        return [Write(undefine(self._entry))]

    def _wrote(self, succeeded: bool) -> list[Effect]:
        if succeeded:
            return [At("u3"), *self._tell()]
        self._rounds += 1
        if self._rounds >= ROUNDS:
            return self._over(
                False, Refused(f"the definition of node {self.number} changes too fast to remove it", "ask again")
            )
        self.state = "reading"
        return [Look(self.number)]

    def _tell(self) -> list[Effect]:
        assert self._entry is not None
        self.state = "telling"
        return [Tell(self._entry.definition)]

    def _over(self, erased: bool, error: CoveyError | None = None) -> list[Effect]:
        self.state = "done"
        if error is not None or self._entry is None:
            return [Finish(None, error)]
        return [Finish({"number": self.number, "name": self._entry.definition.name, "erased": erased})]

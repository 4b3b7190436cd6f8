"""The words of the node's life: what `machine.py` is told (inputs) and what it orders (effects). Pure data."""

from __future__ import annotations

from typing import Literal

import msgspec

from .definitions import Replacement
from .identity import NOWHERE, Copy, Elsewhere, Verdict
from .settings import DISCOVERY_WAIT

State = Literal["new", "undefined", "offline", "checking", "starting", "configuring", "online", "leaving", "failed"]


class Plan(msgspec.Struct, frozen=True):
    """What is fixed for the life of a daemon: the components in order of start, and who offers which function."""

    order: tuple[str, ...]
    functions: dict[str, str]
    discovery_wait: float = DISCOVERY_WAIT

    def functions_of(self, component: str) -> list[str]:
        return sorted(function for function, owner in self.functions.items() if owner == component)


# --- inputs ---------------------------------------------------------------------------------------------------


class Started(msgspec.Struct, frozen=True):
    """The daemon started with these local facts; `problem` is why nothing can be done with them."""

    defined: bool
    server: bool
    offline: bool
    boot_id: str
    problem: str = ""


class Defined(msgspec.Struct, frozen=True):
    """The node was just defined to the cluster its pointer names."""

    server: bool
    boot_id: str


class Undefined(msgspec.Struct, frozen=True):
    """The definition was taken from this node while it was offline; nothing of it is left here."""


class OnlineAsked(msgspec.Struct, frozen=True):
    """Somebody asked for this node to join."""

    server: bool
    boot_id: str


class OfflineAsked(msgspec.Struct, frozen=True):
    """Somebody asked for this node to leave; an operator's word holds over restarts."""

    reason: str
    operator: bool = True


class Switch(msgspec.Struct, frozen=True):
    """The target pointer names another cluster: leave this one in order, and join that one in the same processes.

    `server`: whether this node runs a registry server there.
    """

    boot_id: str
    server: bool
    reason: str


class Removed(msgspec.Struct, frozen=True):
    """A committed view no longer has this boot of the node."""

    boot_id: str
    server: bool
    reason: str = "the others took this node for dead"


class CloneTold(msgspec.Struct, frozen=True):
    """Liveness refused this boot: its number is online under another boot id, which answers (SPEC 5.5)."""

    reason: str


class ComponentStarted(msgspec.Struct, frozen=True):
    """The process runs (it need not be ready)."""

    name: str


class ComponentFailed(msgspec.Struct, frozen=True):
    """The process could not be started."""

    name: str
    reason: str


class ComponentExited(msgspec.Struct, frozen=True):
    """The process ended and nobody had asked it to."""

    name: str
    status: int
    reason: str = ""


class ComponentStopped(msgspec.Struct, frozen=True):
    """The process that was to stop is gone."""

    name: str


class FunctionReady(msgspec.Struct, frozen=True):
    """A component says that it offers this function now."""

    function: str


class GlobalRead(msgspec.Struct, frozen=True):
    """The three copies, for the verdict of step 7; the arguments of `identity.judge`."""

    original: str | None
    local: Copy | None
    global_: Copy | None
    known: bool = True
    why: str = ""
    replacement: Replacement | None = None
    elsewhere: Elsewhere = NOWHERE


class Replaced(msgspec.Struct, frozen=True):
    """Scenario 3 was carried out (`done`), or must wait for open writes; `taken` says why it never can be."""

    done: bool
    taken: str = ""


class ControllersAsked(msgspec.Struct, frozen=True):
    """The Resource Manager wants the controllers' processes (step 21)."""

    names: tuple[str, ...]


class ControllersReady(msgspec.Struct, frozen=True):
    """All controllers are ready (step 24)."""


class DiscoveryDone(msgspec.Struct, frozen=True):
    """The Resource Manager reports that every controller discovered, or failed to."""


class Announced(msgspec.Struct, frozen=True):
    """Liveness knows that this node is configured, or could not be told."""

    done: bool = True


class Left(msgspec.Struct, frozen=True):
    """Liveness took this node out of the view, or could not."""


class Erased(msgspec.Struct, frozen=True):
    """The local storage of the cluster is gone."""


Input = (
    Started
    | Defined
    | Undefined
    | OnlineAsked
    | OfflineAsked
    | Switch
    | Removed
    | CloneTold
    | ComponentStarted
    | ComponentFailed
    | ComponentExited
    | ComponentStopped
    | FunctionReady
    | GlobalRead
    | Replaced
    | ControllersAsked
    | ControllersReady
    | DiscoveryDone
    | Announced
    | Left
    | Erased
)

# --- effects --------------------------------------------------------------------------------------------------


class StateChanged(msgspec.Struct, frozen=True):
    """Tell whoever waits, and the bus."""

    state: State
    reason: str = ""


class Begin(msgspec.Struct, frozen=True):
    """A new stay begins: a new boot log, and the broker learns the boot id."""

    boot_id: str


class StartComponent(msgspec.Struct, frozen=True):
    """Start the process, or a new life in one that was kept: `ComponentStarted` or `ComponentFailed`."""

    name: str


class StopComponent(msgspec.Struct, frozen=True):
    """Stop the process within `deadline` seconds, then by force: `ComponentStopped`.

    `keep`: only its life in this cluster ends; the next `StartComponent` goes on with the same process.
    """

    name: str
    deadline: float
    keep: bool = False


class ReadGlobal(msgspec.Struct, frozen=True):
    """Read this node's definition from the registry, current, and all else a verdict needs: `GlobalRead`."""


class AskVerdict(msgspec.Struct, frozen=True):
    """The registry cannot be reached from here: ask other nodes whether this one is still defined (SPEC 5.7).

    `GlobalRead` when they proved that it is not; else nothing.
    """


class RefreshLocal(msgspec.Struct, frozen=True):
    """Renew the local configuration from the global one: missed updates (SPEC 5.3)."""


class ReplaceIdentity(msgspec.Struct, frozen=True):
    """Carry out scenario 3, or complete it: `Replaced`."""

    original: str


class EraseLocal(msgspec.Struct, frozen=True):
    """Erase this cluster's local storage, on the ground of this verdict: `Erased`."""

    verdict: Verdict


class OpenFunctions(msgspec.Struct, frozen=True):
    """Functions of the DCM itself are ready."""

    functions: tuple[str, ...]


class CloseFunctions(msgspec.Struct, frozen=True):
    """These functions are not there any more."""

    functions: tuple[str, ...]


class Discover(msgspec.Struct, frozen=True):
    """Let the Resource Manager discover (j3): `DiscoveryDone`."""


class Announce(msgspec.Struct, frozen=True):
    """Tell Liveness that this node is configured (j9): `Announced`."""


class Leave(msgspec.Struct, frozen=True):
    """Let Liveness take this node out of the view at once: `Left`."""


class ComeBack(msgspec.Struct, frozen=True):
    """Let the node join again, unless somebody wants it offline: `Defined`."""


class KeepOffline(msgspec.Struct, frozen=True):
    """Remember, over restarts, whether an operator wants this node offline."""

    offline: bool


class RecordStep(msgspec.Struct, frozen=True):
    """A step of the bootstrap, for the boot log."""

    step: int
    event: str = ""
    how: str = "done"


class Crashed(msgspec.Struct, frozen=True):
    """A process died unasked: keep a record in `core/` and publish it."""

    name: str
    status: int
    reason: str


Effect = (
    StateChanged
    | Begin
    | StartComponent
    | StopComponent
    | ReadGlobal
    | AskVerdict
    | RefreshLocal
    | ReplaceIdentity
    | EraseLocal
    | OpenFunctions
    | CloseFunctions
    | Discover
    | Announce
    | Leave
    | ComeBack
    | KeepOffline
    | RecordStep
    | Crashed
)

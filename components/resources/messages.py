"""What the Resource Manager says to controllers, to the registry and to its peers, and what it hears.

Any component may import this module. Orders to controllers and to the registry are messages too, so that a simulated
controller or registry is just another machine; in real life the service turns each into one call on the bus and the
call's outcome into the answering message. Every order carries an `id`, every answer repeats it; an answer that never
comes is the machine's business (deadlines), and one that comes twice or too late is ignored by its id.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ...bus.machine import Message
from ...controllers.catalog import Versions

SERVICE = "resources"
GROUP = "sys.resources"
PREFIX = "/resources/"


# --- to and from a controller -----------------------------------------------------------------------------------


class Describe(Message, frozen=True):
    """Ask a controller for its class descriptions. Answered by `Described` or `CallFailed`."""

    id: str


class Described(Message, frozen=True):
    """A controller's class descriptions, in wire form."""

    id: str
    classes: tuple[dict[str, Any], ...]


class Discover(Message, frozen=True):
    """Ask a controller for all resources there are now. Answered by `Discovered` or `CallFailed`."""

    id: str


class Discovered(Message, frozen=True):
    """Everything a controller found, in wire form; `at` is when, as RFC 3339 text (it goes to the registry as such).

    `findings` are what the controller's own process left out of it, each with a code and a message. `remembered`: it is
    of this process's life in another cluster, so that it can be written at once; the controller looks anew after that.
    """

    id: str
    found: tuple[Any, ...]
    at: str
    findings: tuple[Any, ...] = ()
    remembered: bool = False


class Read(Message, frozen=True):
    """Ask a controller for the dynamic attributes of one resource. Answered by `Values` or `CallFailed`."""

    id: str
    cls: str
    key: dict[str, Any]


class Values(Message, frozen=True):
    """The attributes that a controller read; `findings` as in `Discovered`."""

    id: str
    attributes: Any
    findings: tuple[Any, ...] = ()


class Change(Message, frozen=True):
    """Tell a controller to change something: one of its verbs, with its arguments; `deadline` in seconds.

    Answered by `Changed` or `CallFailed`. Sent once: what is lost is not repeated, since it may have happened.
    """

    id: str
    verb: Literal["set", "define", "undefine", "action"]
    deadline: float
    arguments: dict[str, Any]


class Changed(Message, frozen=True):
    """What a controller answered to `Change`: the attributes that hold now, or an action's result; `at` as RFC 3339."""

    id: str
    at: str
    attributes: Any = None
    result: Any = None
    findings: tuple[Any, ...] = ()


class CallFailed(Message, frozen=True):
    """An order came to nothing: `code`, `reason` and `hint` are those of the error. Also the registry's refusals."""

    id: str
    code: str
    reason: str
    hint: str = ""


# --- to and from the registry -----------------------------------------------------------------------------------


class ReadStored(Message, frozen=True):
    """Ask the registry for every resource; answered by `Stored` or `CallFailed`."""

    id: str


class Stored(Message, frozen=True):
    """What the registry holds below `/resources/`: `(key, value, mod_revision)`."""

    id: str
    items: tuple[tuple[str, dict[str, Any], int], ...]


class Write(Message, frozen=True):
    """One transaction: if every `(key, mod_revision)` still holds, put all of `puts`.

    The `id` is the request id: repeated after a loss, it is applied once. Answered by `Written` or `CallFailed`.
    """

    id: str
    compare: tuple[tuple[str, int], ...]
    puts: tuple[tuple[str, dict[str, Any]], ...]


class Written(Message, frozen=True):
    """The outcome of `Write`: `succeeded` false means that a comparison failed and nothing was written."""

    id: str
    succeeded: bool
    revision: int


# --- between nodes -----------------------------------------------------------------------------------------------


class AskVersions(Message, frozen=True):
    """Ask a peer which classes it has. Sent to members whose own message was missed; repeated until answered."""


class ClassVersions(Message, frozen=True):
    """The classes of one node. Broadcast strongly in `sys.resources`, or sent in answer to `AskVersions`.

    A duplicate changes nothing; the last one of a node holds.
    """

    node: int
    classes: Versions


# --- what happened on this node: inputs of the machine -------------------------------------------------------------


class Entry(msgspec.Struct, frozen=True):
    """A controller of this node. `starting`: its process was started, its service is awaited; `failed`: it was not."""

    name: str
    state: Literal["starting", "running", "failed"] = "running"
    reason: str = ""


class Opened(msgspec.Struct, frozen=True):
    """The registry's writes are open and this node's resources may be read and written (step 18)."""


class ClassesKnown(msgspec.Struct, frozen=True):
    """What the description files of this node say, before any controller has spoken (step 19)."""

    classes: Versions


class ControllersListed(msgspec.Struct, frozen=True):
    """The DCM started the controllers of this node (step 21): these and no others are expected."""

    entries: tuple[Entry, ...]


class ControllerAppeared(msgspec.Struct, frozen=True):
    """A controller's service is on the bus, for the first time or after a restart."""

    name: str


class ControllerGone(msgspec.Struct, frozen=True):
    """A controller's service left the bus."""

    name: str
    reason: str


class MembersChanged(msgspec.Struct, frozen=True):
    """The nodes that have a member in `sys.resources` now, this one included."""

    nodes: tuple[int, ...]


Fact = Opened | ClassesKnown | ControllersListed | ControllerAppeared | ControllerGone | MembersChanged


# --- what clients ask: `Asked(request, question)` ------------------------------------------------------------------


class DiscoverAll(msgspec.Struct, frozen=True):
    """Run every controller's discovery in parallel and answer when all are written, or after `wait` seconds.

    Answered with a list of `{name, state: done|failed|late, reason}`. Without `again`, a controller that has already
    discovered since it came up counts as done: the join asks so, because discovery begins as soon as a controller can.
    """

    wait: float
    again: bool = False


class ReadLocal(msgspec.Struct, frozen=True):
    """The dynamic attributes of this node's resources of one class; `ids` empty: of all.

    Answered with a list of `{id, attributes, age_s, reason}`: at once from the last poll, or `fresh` within `wait`.
    """

    cls: str
    ids: tuple[str, ...] = ()
    fresh: bool = False
    wait: float = 2.0


class SelectLocal(msgspec.Struct, frozen=True):
    """This node's resources of one class for which an expression holds, whole.

    Answered with `{items, reasons}`: rows `{class, id, key, node, attributes, age_s, reason}`, and why reads failed.
    """

    cls: str
    select: str
    fresh: bool = False
    wait: float = 2.0
    ids: tuple[str, ...] = ()


class WatchLocal(msgspec.Struct, frozen=True):
    """What changed of this node's resources of one class behind number `since` of the run `token` (empty: from now on).

    `select` is an expression, empty: all. Answered within `wait` seconds with `{token, to, missed, events}`; an event
    is `{type: appeared|changed|gone, class, id, key, node, attributes, changed: names}`.
    """

    cls: str
    select: str = ""
    token: str = ""
    since: int = 0
    wait: float = 10.0


class ChangeOne(msgspec.Struct, frozen=True):
    """Change one resource of this node: set attributes, define it, remove it, run one of its actions.

    `values` are attributes or arguments; `as_text`: as a person typed them. Answered with its row (`run`: with its
    place and `result`) and `warnings` on what the controller answered amiss, or with the error.
    """

    what: Literal["set", "define", "undefine", "run"]
    cls: str
    id: str = ""
    values: dict[str, Any] = {}
    action: str = ""
    as_text: bool = False


class DescribeClass(msgspec.Struct, frozen=True):
    """The description of a class that a controller of this node has; None when none has."""

    cls: str


class ListClasses(msgspec.Struct, frozen=True):
    """Every class known in the cluster with its nodes, the differences between nodes in words, and who has told."""


class Standing(msgspec.Struct, frozen=True):
    """How each controller of this node stands: `{name, state, reason, classes, resources}`."""


Question = DiscoverAll | ReadLocal | SelectLocal | WatchLocal | ChangeOne | DescribeClass | ListClasses | Standing

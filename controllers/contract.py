"""What the author of a controller writes: a `Controller` subclass, `Found`, and methods marked with `action`.

Knows no bus, no YAML and no thread: `binding.py` checks a class against its description, `runner.py` runs it.
The error kinds for authors are `Retry` (not now, ask again) and `Failed` (it did not work); any other
exception, but those of covey itself, is taken as a bug of the controller, and its file and line are named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from ..errors import Failed, Retry, Unsupported

Method = TypeVar("Method", bound=Callable[..., Any])

GROUP = "covey.controllers"
"""The group of entry points that controllers are found by."""

_MARK = "__covey_actions__"


class Found:
    """One resource that a controller discovered: `Found("GpuDevice", key={"Index": 0}, Model="…")`.

    What is given beside the key are attributes. Persistent ones go to the registry; a dynamic one is only a
    first value, and usually left to `read`. A null says "not known now".
    """

    __slots__ = ("attributes", "class_name", "key")

    def __init__(self, class_name: str, /, *, key: Mapping[str, Any], **attributes: Any) -> None:
        self.class_name = class_name
        self.key: Mapping[str, Any] = dict(key)
        self.attributes: Mapping[str, Any] = attributes

    def __repr__(self) -> str:
        return f"Found({self.class_name!r}, key={self.key!r}, …)"


@dataclass(frozen=True)
class Resource:
    """The resource a method is about. `attributes` are the persistent ones of its last discovery, if there was one."""

    class_name: str
    key: Mapping[str, Any]
    id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Node:
    """The node that a controller runs on, as it was when the controller was made; `state` is its state folder."""

    number: int = 1
    name: str = "n1"
    cluster: str = "test"
    state: str = ""


class Controller:
    """Base of every controller: it owns the resource classes that its description file declares.

    Set `description` to the file's name beside the module, or write a method `describe` that returns the classes.
    Methods may be `async` or plain; a plain one runs in a thread of its own, an async one on an event loop of the
    controller's own. Each call has a deadline. One object is made per process, without arguments; calls for several
    resources may run at once. `options` is what the node's YAML says under `controllers: {NAME: {options: …}}`:
    annotate it with a pydantic model (`options: GpuOptions`), and it is there, checked, before `__init__` runs, as is
    `node`.
    """

    description: ClassVar[str] = ""
    options: Any
    node: Node

    def describe(self) -> Any:
        """Return the classes by name, as `classes` of a description file has them; asked once, after `__init__`.

        For a controller whose classes depend on its options. Their actions come to `run`. None at all is allowed.
        """
        raise NotImplementedError

    def run(self, resource: Resource, action: str, arguments: dict[str, Any]) -> Any:
        """Run an action of a class from `describe`, arguments checked before; return its result mapping."""
        raise NotImplementedError

    def discover(self) -> Any:
        """Yield (or return an iterable of) `Found` for every resource there is now; what is not found is gone.

        Raise `Unsupported` when this machine cannot have any: the controller runs on, and its reason says why.
        """
        raise NotImplementedError

    def read(self, resource: Resource) -> Any:
        """Return a mapping of the dynamic attributes of one resource as they are now."""
        return {}

    def set(self, resource: Resource, values: dict[str, Any]) -> Any:
        """Change writable attributes of one resource, checked before. May return a mapping of what they are now."""
        raise _unsupported(self, "set", "nothing can be changed")

    def define(self, resource: Resource, values: dict[str, Any]) -> Any:
        """Make a resource that is not there; values are checked, defaults filled in. May return what they are now."""
        raise _unsupported(self, "define", "nothing can be defined")

    def undefine(self, resource: Resource) -> Any:
        """Remove one resource for good; its next discovery must not find it."""
        raise _unsupported(self, "undefine", "nothing can be removed")


def _unsupported(controller: Controller, method: str, so: str) -> Unsupported:
    return Unsupported(
        f"{type(controller).__name__} has no method {method}, so {so}", "its author would have to add it"
    )


def action(class_name: str, name: str = "") -> Callable[[Method], Method]:
    """Mark a method as the action `name` of a class: `method(resource, *, Argument=…)`, returning its result
    mapping.

    The action, its arguments and its result must be declared in the description. Several marks may be
    stacked.
    """
    if not isinstance(class_name, str) or not isinstance(name, str) or not name:
        raise TypeError('action needs a class and a name: @covey.action("GpuDevice", "Reset")')

    def mark(method: Method) -> Method:
        setattr(method, _MARK, (*getattr(method, _MARK, ()), (class_name, name)))
        return method

    return mark


def actions_of(controller: type[Controller]) -> dict[tuple[str, str], list[str]]:
    """Return the names of the methods marked for each (class, action)."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in dir(controller):
        for pair in getattr(getattr(controller, name, None), _MARK, ()):
            found.setdefault(pair, []).append(name)
    return found


__all__ = ["Controller", "Failed", "Found", "Resource", "Retry", "action", "actions_of"]

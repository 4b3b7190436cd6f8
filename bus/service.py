"""A service's verbs: registered by name with a role and typed arguments, and called only so.

There is no way from a message to a method that was not registered. Arguments are decoded straight into a struct made
from the function's keyword-only parameters, so a wrong or unknown argument is refused before any code of the service
runs. Every service also answers `ping` and `describe`. How requests get here and answers back: `serving.py`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Annotated, Any, TypeVar

import msgspec

from ..errors import BadArguments, Denied, NoVerb, WrongCluster
from .codec import split_items
from .messages import Header, Role, split_address

Function = TypeVar("Function", bound=Callable[..., Any])

Seconds = Annotated[float, msgspec.Meta(ge=0.0)]
"""The type of an argument that says how long: no negative number and no NaN, which would confuse every clock."""

current_cause: ContextVar[str] = ContextVar("current_cause", default="")
"""The cause of what is being handled: calls made meanwhile inherit it, so that the tap can show the whole story."""


class Request(msgspec.Struct, frozen=True):
    """Who asks: `service` and `node` of the caller, its role, the story it belongs to, and the call's own ids.

    `uid` is the user behind the caller, as the kernel of its node proved it; -1: unknown. `key` is the public key that
    the other node proved, in hex: empty for callers of this node, and with `mode: open`. A caller that came by the join
    port has the service `join-N` and node 0, and is nobody but the holder of that key.
    """

    service: str
    node: int
    role: Role
    cause: str = ""
    request_id: str = ""
    cluster: str = ""
    budget: float = 0.0
    uid: int = -1
    key: str = ""

    @property
    def source(self) -> str:
        """The caller as `service@node`."""
        return f"{self.service}@{self.node}"


MAX_SERVED = 1000
"""Requests one party waits for at a time, unless its service says another number; more are refused with
`bus.overloaded`."""


def verb(role: Role = Role.LOOK) -> Callable[[Function], Function]:
    """Mark a method as a verb that callers of at least `role` may use.

    Its keyword-only parameters are its arguments; a positional parameter named `request` gets the `Request`.
    """

    def mark(function: Function) -> Function:
        function.__covey_role__ = role  # type: ignore[attr-defined]  # the mark of a verb
        return function

    return mark


class Verb:
    """One registered verb."""

    def __init__(self, name: str, function: Callable[..., Any], role: Role) -> None:
        self.name = name
        self.role = role
        self.summary = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
        self._function = function
        self.waits = inspect.iscoroutinefunction(function)  # or it is seen to return futures (`serving.py`)
        parameters = inspect.signature(function).parameters.values()
        self.wants_request = any(p.name == "request" and p.kind is not p.KEYWORD_ONLY for p in parameters)
        hints = typing.get_type_hints(function, include_extras=True)
        fields: list[Any] = []
        for parameter in parameters:
            if parameter.name == "request" or parameter.kind in (
                parameter.VAR_KEYWORD,
                parameter.VAR_POSITIONAL,
            ):
                continue
            annotation = hints.get(parameter.name, Any)
            if parameter.default is parameter.empty:
                fields.append((parameter.name, annotation))
            else:
                fields.append((parameter.name, annotation, parameter.default))
        self._open = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self.arguments = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=not self._open)
        self._one = msgspec.msgpack.Decoder(self.arguments)
        self._many = msgspec.msgpack.Decoder(list[self.arguments])  # type: ignore[name-defined]  # made above

    def read(self, body: bytes | memoryview, count: int) -> list[dict[str, Any] | BadArguments]:
        """Return the arguments of each item of a body, or why they are none; raises Malformed.

        A batch is decoded at once; only when one of it is bad, one by one.
        """
        if not self._open:
            try:
                decoded = [self._one.decode(body)] if count == 1 else self._many.decode(body)
                if len(decoded) == count:
                    return [msgspec.structs.asdict(each) for each in decoded]
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
        return [self._read_one(item) for item in split_items(body, count)]

    def run(self, request: Request | None, arguments: dict[str, Any]) -> Any:
        """Call the function; the result may be one to wait for. `request` is given to those that want it."""
        return self._function(request, **arguments) if self.wants_request else self._function(**arguments)

    def _read_one(self, item: Any) -> dict[str, Any] | BadArguments:
        try:
            arguments = msgspec.structs.asdict(self._one.decode(item))
            if self._open:
                arguments = msgspec.msgpack.decode(item) | arguments
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            return BadArguments(f"'{self.name}' cannot take these arguments: {problem}", self.usage())
        return arguments

    def usage(self) -> str:
        """Return the verb as a person would write it: `get(key, consistency=…)`."""
        required = set(self.arguments.__struct_fields__) - {
            field.name for field in msgspec.structs.fields(self.arguments) if not field.required
        }
        names = [name if name in required else f"{name}=…" for name in self.arguments.__struct_fields__]
        return f"{self.name}({', '.join(names)})"

    def describe(self) -> dict[str, Any]:
        """Return name, summary, role and the JSON Schema of the arguments."""
        schema = msgspec.json.schema(self.arguments, schema_hook=lambda _: {"description": "anything"})
        definition = schema.get("$defs", {}).get(self.name, schema)
        arguments = {key: definition[key] for key in ("properties", "required") if key in definition}
        return {
            "verb": self.name,
            "summary": self.summary,
            "role": self.role.name.lower(),
            "arguments": arguments,
        }


class Service:
    """A named set of verbs, made from an object with `@verb` methods or from a dict of functions."""

    def __init__(self, name: str, verbs: Mapping[str, Callable[..., Any]] | object) -> None:
        self.name = name
        self.cluster_id = ""
        """When set, requests that believe in another cluster are refused."""
        self.most = MAX_SERVED
        found: dict[str, tuple[Callable[..., Any], Role]] = {}
        if isinstance(verbs, Mapping):
            for key, function in verbs.items():
                found[key] = (function, getattr(function, "__covey_role__", Role.LOOK))
        else:
            for key in dir(type(verbs)):
                role = getattr(getattr(type(verbs), key, None), "__covey_role__", None)
                if role is not None:
                    found[key] = (getattr(verbs, key), role)
        found.setdefault("ping", (self.ping, Role.LOOK))
        found.setdefault("describe", (self.describe, Role.LOOK))
        self.verbs = {key: Verb(key, function, role) for key, (function, role) in sorted(found.items())}
        self._topics = {f"{name}.{key}": each for key, each in self.verbs.items()}

    def ping(self) -> dict[str, Any]:
        """Answer at once: the service's loop runs."""
        return {"service": self.name}

    def describe(self) -> list[dict[str, Any]]:
        """List the verbs with their arguments and roles."""
        return [each.describe() for each in self.verbs.values()]

    def find(self, header: Header) -> Verb:
        """Return the verb that a message asks for; raises NoVerb, Denied, WrongCluster."""
        found = self._topics.get(header.topic)
        if found is None:
            name = header.topic.removeprefix(f"{self.name}.").partition(".")[0]
            found = self.verbs.get(name)
            if found is None:
                raise NoVerb(f"'{self.name}' has no verb '{name}'", f"it has: {', '.join(self.verbs)}")
        if header.role < found.role:
            needed, has = found.role.name.lower(), role_of(header).name.lower()
            raise Denied(f"'{self.name}.{found.name}' needs the role {needed}, you have {has}")
        if self.cluster_id and header.cluster not in ("", self.cluster_id):
            raise WrongCluster(f"this node is in cluster {self.cluster_id}, the request is for {header.cluster}")
        return found


def role_of(header: Header) -> Role:
    """Return the sender's role; a header may hold any number."""
    return Role(min(max(header.role, 0), Role.COMPONENT))


def requests_of(header: Header) -> Callable[[int, str], Request]:
    """Return what makes the `Request` of an item of this message, from its index and cause."""
    service, node = split_address(header.source)
    number, role = node if isinstance(node, int) else 0, role_of(header)
    ids = header.request_ids

    def make(index: int, cause: str) -> Request:
        request_id = ids[index] if ids else ""
        budget, uid, key = header.budget, header.uid, header.key
        return Request(service, number, role, cause, request_id, header.cluster, budget, uid, key)

    return make

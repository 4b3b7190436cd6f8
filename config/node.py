"""The node's own YAML file: its model, what must hold across it, and the one code path that reads and checks it.

`load_node` (what `covey node start` calls) and `check_node` (`covey config check`) differ only in what they return,
so a file that passes the check never fails the start for its content. Which controllers and identity sources are
installed is told by the caller, and so is how a key file is checked; floor 0 cannot know. Each field's description is
what users read: unit, range, why this default. Odd: relative paths count from the folder of the file, as it was named
(a link is not followed first).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from ..errors import CoveyError
from .document import load, read
from .findings import Finding, quoted
from .roles import known_names, uids_of
from .units import Duration, between
from .values import Adapter, Name, PlacedPath, StateFolder, identity_fields
from .walker import Part, Problem
from .wording import nearest, refusal, suggestion

KeyCheck = Callable[[Path], CoveyError | None]
"""Says what is wrong with a key file, None when it can be used."""

OptionsOf = Callable[[str], type[BaseModel] | None]
"""Gives the model of a controller's options by its name, None when it has none."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def as_written(text: str) -> Any:
    """Return a default that is read like a value of the file, so that the schema shows it as people write it."""
    return text


def _identity(written: Any, info: ValidationInfo) -> Any:
    return written if isinstance(written, Identity) else identity_fields(written, info)


class Settings(BaseModel):
    """What all sections share: no unknown keys, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Identity(Settings):
    """Where the original id of this operating system instance comes from (SPEC 5.1)."""

    source: str
    value: Any = None


class NodeSection(Settings):
    """This node: what it is called, where it keeps its files, where its peers find it."""

    name: Name = Field(
        description="For people only. Letters, digits, '_', behind the first also '-' and '.'; at most 63, never all "
        "digits (that is a node number). No default: two nodes with one name confuse everybody.",
        examples=["n1"],
    )
    state_dir: StateFolder = Field(
        default=as_written("/var/lib/covey"),
        description="Folder of all the node's files, relative to this file's folder; its socket DIR/run/events.sock "
        "must fit in 107 bytes. The default is the usual place for a system service.",
        examples=["./n1"],
    )
    identity: Annotated[
        Identity,
        BeforeValidator(_identity),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "object", "minProperties": 1, "maxProperties": 1},
                ]
            }
        ),
    ] = Field(
        default=as_written("machine-id"),
        description="Where this machine's id comes from: machine-id, dmi, generated, {file: PATH}, {command: [program, "
        "argument]}, {value: TEXT}, or a source of a plugin. Default machine-id: every Linux has one, and a "
        "reinstalled system gets another.",
        examples=["machine-id"],
    )
    adapters: Literal["auto"] | Annotated[tuple[Adapter, ...], Field(min_length=1)] = Field(
        description="The node's own addresses for system traffic, each as ADDRESS/PREFIX (IPv4 or IPv6), at least one, "
        "each once; or auto: all that the system has. No default: what others may reach must be decided.",
        examples=[["127.1.0.1/16"]],
    )
    port: Annotated[int, Field(ge=1, le=65534)] = Field(
        default=7400,
        description="TCP port for peers, 1 to 65534; the join port is the next one. The default is free on most "
        "systems and needs no privilege.",
        examples=[7400],
    )


class KeyFile(Settings):
    """Where the node's private key lies."""

    file: PlacedPath = Field(description="Path, relative to this file's folder; mode 0600.", examples=["n1.key"])


class Roles(Settings):
    """Which local users and groups may do more than look. Root and the daemon's user are always admins."""

    admin: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), description="Users and groups that may do everything. Default: only root and the daemon's user."
    )
    operator: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), description="Users and groups that may run operations, not change definitions. Default: nobody."
    )


class Security(Settings):
    """Who may speak with this node."""

    mode: Literal["curve", "open"] = Field(
        default="curve",
        description="curve: everything between nodes is encrypted, and only nodes of the cluster are let in, each by "
        "its key. open: neither, so only loopback adapters are accepted. Default curve: an open node must be wanted.",
        examples=["curve"],
    )
    key: KeyFile | None = Field(
        default=None,
        description="The node's key pair, made by `covey node init`. Needed unless `mode: open`. No default: the "
        "cluster knows the node by this file, so it should be decided where it is kept.",
        examples=[{"file": "n1.key"}],
    )
    roles: Roles = Field(default_factory=Roles, description="Local users and groups; everyone else may look.")

    @model_validator(mode="after")
    def _curve_needs_a_key(self) -> Self:
        if self.mode == "curve" and self.key is None:
            hint = "write key: {file: NAME.key}, a file that `covey node init` makes\nor mode: open, for loopback alone"
            raise refusal("config.missing", "'security' has no 'key', and mode: curve needs one", hint, at_key=True)
        return self


class Liveness(Settings):
    """How the node watches its peers."""

    interval: Annotated[Duration, between("100ms", "60s")] = Field(
        default=as_written("1s"),
        description="Time between two heartbeats to a peer, 100ms to 60s. Default 1s: a dead peer is seen within 5s, "
        "at a cost nobody notices.",
        examples=["1s"],
    )


class ControllerSettings(Settings):
    """What holds for one resource controller on this node."""

    enabled: bool = Field(default=True, description="false: do not run it. Default true: what is installed is meant.")
    poll: Annotated[Duration, between("100ms", "1d")] | None = Field(
        default=None,
        description="Time between two readings of its dynamic attributes, 100ms to 1d. Default: what its resource "
        "description says for each class.",
    )
    discover: Annotated[Duration, between("1s", "7d")] | None = Field(
        default=None,
        description="Time between two searches for resources, 1s to 7d. Default: what its resource description says "
        "for each class.",
    )
    options: dict[str, Any] = Field(
        default={},
        description="What this controller can be told besides; its documentation says what. A change takes effect when "
        "the node starts again. Default: nothing.",
    )


class AnyOptions(BaseModel):
    """Options of a controller that is not known before it is loaded: whatever is written passes."""

    model_config = ConfigDict(extra="allow")


class NodeConfig(Settings):
    """A node's YAML file, read and checked."""

    node: NodeSection = Field(description="This node.", examples=[{"name": "n1", "adapters": ["127.1.0.1/16"]}])
    security: Security = Field(description="Who may speak with this node.", examples=[{"key": {"file": "n1.key"}}])
    isolation: Literal["process", "inline"] = Field(
        default="process",
        description="process: one process a component. inline: all in one process, for tests, labs and small machines. "
        "Default process: what fails in one component cannot harm another.",
    )
    lab: bool = Field(
        default=False,
        description="true: a node of a lab, which `covey lab cut` may cut off from others. Loopback alone. "
        "Default false: nobody may do that to a node that is in earnest.",
    )
    liveness: Liveness = Field(default_factory=Liveness, description="How the node watches its peers.")
    controllers: dict[str, ControllerSettings] = Field(
        default_factory=dict,
        description="Settings of resource controllers, by name. Controllers that are not named here run with theirs.",
    )
    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    def model_post_init(self, context: Any) -> None:
        """Keep the folder of the file: paths in options of controllers count from it, and are read later."""
        self._folder = (context or {}).get("folder", self._folder)

    @property
    def folder(self) -> Path:
        """The folder that relative paths count from."""
        return self._folder


def load_node(
    path: str | os.PathLike[str],
    *,
    controllers: Collection[str] | None = None,
    identity_sources: Collection[str] | None = None,
    check_key: KeyCheck | None = None,
    options_of: OptionsOf | None = None,
    env: Mapping[str, str] | None = None,
) -> NodeConfig:
    """Return a node's settings; raise `InvalidFile` with all findings. Arguments as of `check_node`."""
    context = _context(controllers, identity_sources, check_key, options_of)
    return load(path, NodeConfig, env=env, context=context, check=across)


def check_node(
    path: str | os.PathLike[str],
    *,
    controllers: Collection[str] | None = None,
    identity_sources: Collection[str] | None = None,
    check_key: KeyCheck | None = None,
    options_of: OptionsOf | None = None,
    env: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Return what is wrong with a node's YAML, by position; `load_node` refuses it if there is an error among it.

    `controllers` and `identity_sources` are the names installed here (None: not known, so any name passes); `check_key`
    looks at the key file of `mode: curve` (None: nobody does); `options_of` gives the models of controllers' options
    (None: any pass); `env` holds the variables for `${env:…}` (None: those of the process).
    """
    context = _context(controllers, identity_sources, check_key, options_of)
    return read(path, NodeConfig, env=env, context=context, check=across)[1]


def _context(
    controllers: Collection[str] | None,
    identity_sources: Collection[str] | None,
    check_key: KeyCheck | None,
    options_of: OptionsOf | None,
) -> dict[str, Any]:
    return {
        "controllers": controllers,
        "identity_sources": identity_sources,
        "check_key": check_key,
        "options_of": options_of,
    }


def across(data: Any, context: Mapping[str, Any]) -> Iterator[Problem | Part]:
    """Find what is wrong between several values of a file, whatever shape they have."""
    adapters, mode = _dig(data, "node", "adapters"), _dig(data, "security", "mode")
    yield from _twice(adapters)
    if _dig(data, "lab") is True:
        yield from _only_loopback(adapters, "lab: true")
    if mode == "open":
        yield from _only_loopback(adapters, "mode: open")
    elif context.get("check_key") is not None:
        yield from _key_file(_dig(data, "security", "key", "file"), context)
    yield from _nobody(_dig(data, "security", "roles"))
    if context.get("controllers") is not None:
        yield from _not_installed(_dig(data, "controllers"), context["controllers"])
    if context.get("options_of") is not None:
        yield from _options(_dig(data, "controllers"), context["options_of"])


def _twice(adapters: Any) -> Iterator[Problem]:
    first: dict[Address, int] = {}
    for position, address in _addresses(adapters):
        if address in first:
            message = f"{address} is listed twice, as items {first[address] + 1} and {position + 1}"
            yield Problem(("node", "adapters", position), "duplicate_address", message, "keep one of them")
        first.setdefault(address, position)


_OTHERWISE = {"mode: open": "or use mode: curve with a key", "lab: true": "or leave lab: out"}


def _only_loopback(adapters: Any, why: str) -> Iterator[Problem]:
    example = "[127.1.0.1/16]"
    if adapters == "auto":
        message = f"'auto' may find addresses that are not loopback, and {why} allows no others"
        hint = f"write the addresses: {example}, {_OTHERWISE[why]}"
        yield Problem(("node", "adapters"), "not_loopback", message, hint)
    for position, address in _addresses(adapters):
        if not address.is_loopback:
            message = f"{address} is not a loopback address, and {why} allows no others"
            hint = f"use 127.0.0.0/8 or ::1, for example {example}, {_OTHERWISE[why]}"
            yield Problem(("node", "adapters", position), "not_loopback", message, hint)


def _key_file(written: Any, context: Mapping[str, Any]) -> Iterator[Problem]:
    if not isinstance(written, str) or not written or "\0" in written or written.startswith("~"):
        return  # no path: that is said elsewhere
    problem = context["check_key"](Path(os.path.normpath(context.get("folder", Path.cwd()) / written)))
    if problem is not None:
        yield Problem(("security", "key", "file"), problem.code, problem.message, problem.hint)


def _nobody(roles: Any) -> Iterator[Problem]:
    """Warn of names that no user or group has: one who is gone locks nobody out, and hides no other mistake."""
    for role in ("admin", "operator"):
        names = _dig(roles, role)
        for position, name in enumerate(names if isinstance(names, list) else ()):
            if isinstance(name, str) and name and uids_of(name) is None:
                near = nearest(name, known_names())
                hint = f"did you mean '{near}'?" if near else "write the name of a local user or group"
                message = f"there is no user or group {quoted(name)} here, so nobody gets this role by it"
                yield Problem(("security", "roles", role, position), "unknown_user", message, hint, "warning")


def _not_installed(settings: Any, installed: Collection[str]) -> Iterator[Problem]:
    for name in settings if isinstance(settings, dict) else ():
        if name in installed:
            continue
        path, hint = ("controllers", name), suggestion(name, installed)
        message = f"no controller {quoted(name)} is installed"
        if _dig(settings, name, "enabled") is False:
            message += ", so there is nothing to switch off"
            yield Problem(path, "unknown_controller", message, hint, "warning", at_key=True)
        else:
            yield Problem(path, "unknown_controller", message, hint, at_key=True)


def _options(settings: Any, options_of: OptionsOf) -> Iterator[Problem | Part]:
    for name in settings if isinstance(settings, dict) else ():
        written = _dig(settings, name, "options")
        if not written or not isinstance(written, dict):
            continue  # what is no section is said elsewhere
        path, model = ("controllers", name, "options"), options_of(name)
        if model is None:
            yield Problem(
                path, "no_options", f"the controller {quoted(name)} has no options", "leave it out", at_key=True
            )
        else:
            yield Part(path, model)


def _addresses(adapters: Any) -> Iterator[tuple[int, Address]]:
    """Yield the addresses of a list with their positions; what is none has a finding of its own."""
    for position, adapter in enumerate(adapters if isinstance(adapters, list) else ()):
        try:
            yield position, ipaddress.ip_address(str(adapter).partition("/")[0])
        except ValueError:
            continue


def _dig(data: Any, *path: str) -> Any:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data

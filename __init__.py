"""What programs and plugins import from covey. Everything is loaded when first used, so `import covey` costs nothing.

This file runs before every module of the package, so it must import nothing itself: a name is looked up in `_HOMES`
and fetched from there. Type checkers see the same names as plain imports.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bus.client import Client as Client
    from .bus.client import describe as describe
    from .bus.messages import Role as Role
    from .bus.service import Request as Request
    from .bus.service import verb as verb
    from .bus.subscription import Event as Event
    from .components.connection import Connection as Connection
    from .components.connection import connect as connect
    from .components.groups.client import Group as Group
    from .components.groups.client import GroupEvent as GroupEvent
    from .components.groups.client import GroupProposal as GroupProposal
    from .controllers.contract import Controller as Controller
    from .controllers.contract import Found as Found
    from .controllers.contract import Resource as Resource
    from .controllers.contract import action as action
    from .errors import AlreadyDefined as AlreadyDefined
    from .errors import Ambiguous as Ambiguous
    from .errors import BadArguments as BadArguments
    from .errors import BadAttribute as BadAttribute
    from .errors import Compacted as Compacted
    from .errors import ConnectionLost as ConnectionLost
    from .errors import CoordinatorChanged as CoordinatorChanged
    from .errors import CoveyError as CoveyError
    from .errors import Denied as Denied
    from .errors import Failed as Failed
    from .errors import Frozen as Frozen
    from .errors import IdentityClone as IdentityClone
    from .errors import IdentityUnreadable as IdentityUnreadable
    from .errors import InvalidFile as InvalidFile
    from .errors import KeyNotFound as KeyNotFound
    from .errors import NoDaemon as NoDaemon
    from .errors import NoQuorum as NoQuorum
    from .errors import NoService as NoService
    from .errors import NotFound as NotFound
    from .errors import NotImplementedYet as NotImplementedYet
    from .errors import NotMember as NotMember
    from .errors import NoVerb as NoVerb
    from .errors import Overloaded as Overloaded
    from .errors import PluginError as PluginError
    from .errors import PredicateFalse as PredicateFalse
    from .errors import ReadOnly as ReadOnly
    from .errors import Refused as Refused
    from .errors import Rejected as Rejected
    from .errors import ResourceNotFound as ResourceNotFound
    from .errors import Retry as Retry
    from .errors import ServiceDied as ServiceDied
    from .errors import Timeout as Timeout
    from .errors import Unreachable as Unreachable
    from .errors import UsageError as UsageError
    from .errors import WrongCluster as WrongCluster
    from .plugins.hookspecs import Component as Component
    from .plugins.hookspecs import IdentitySource as IdentitySource
    from .plugins.hookspecs import hookimpl as hookimpl

    __version__: str

_HOMES: dict[str, str] = {
    **dict.fromkeys(("Client", "describe"), "bus.client"),
    "Role": "bus.messages",
    **dict.fromkeys(("Request", "verb"), "bus.service"),
    "Event": "bus.subscription",
    **dict.fromkeys(("Connection", "connect"), "components.connection"),
    **dict.fromkeys(("Group", "GroupEvent", "GroupProposal"), "components.groups.client"),
    **dict.fromkeys(("Controller", "Found", "Resource", "action"), "controllers.contract"),
    **dict.fromkeys(("Component", "IdentitySource", "hookimpl"), "plugins.hookspecs"),
}
"""Where each name lives; every other one that is exported is an error class of `errors`."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("covey")
    elif name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    elif name[:1].isupper() and name in _errors():
        value = _errors()[name]
    else:
        raise AttributeError(f"module 'covey' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_errors(), "__version__"})


def _errors() -> dict[str, Any]:
    module = import_module(".errors", __name__)
    classes = ((name, found) for name, found in vars(module).items() if isinstance(found, type))
    return {name: found for name, found in classes if issubclass(found, module.CoveyError)}

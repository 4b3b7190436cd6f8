"""Loads plugins one by one, so that none can hurt another, and can say of each what became of it and why.

Knows no bus and no component; what makes a loaded object a good one beyond its hooks (a controller class,
say) is told by the caller through `accept`. pluggy registers and checks hooks; loading and calling are done
here, because pluggy's loader stops at the first package that does not import, and its caller at the first
hook that raises.

Fail-stop: a plugin that raised, in loading or in a hook, has its hooks taken back and is not called again in
this process. So `running` and `failed` mean exactly that, and half of a plugin is never there.
KeyboardInterrupt is the one exception that is not the plugin's: a person pressed it.
"""

from __future__ import annotations

import inspect
import platform
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import Any, Literal

import pluggy

from ..errors import NotFound
from . import hookspecs
from .blame import Home, home_of, reason, tail
from .candidates import GROUPS, Candidate, find

API = 1
"""The version of what covey promises plugins; one that declares another `covey_api` is not loaded."""

State = Literal["found", "running", "blocked", "failed", "shadowed", "incompatible"]
Accept = Callable[[str, Any], None]

_HOOK_GROUPS = {"covey.components": "covey_component", "covey": ""}


@dataclass(frozen=True)
class PluginStatus:
    """What `covey plugin ls` shows of a plugin. `found`: installed, and not asked for in this process."""

    name: str
    group: str
    package: str
    version: str
    state: State
    reason: str


@dataclass
class _Plugin:
    candidate: Candidate
    home: Home
    state: State = "found"
    reason: str = ""
    detail: str = ""
    loaded: Any = field(default=None, repr=False)

    @property
    def key(self) -> str:
        return f"{self.candidate.group}:{self.candidate.name}"


class _Unfit(Exception):
    """A plugin that imported and cannot be used; the text is the whole reason."""


class _Incompatible(Exception):
    """A plugin written for another version of the plugin interface; the text is the whole reason."""


class PluginManager:
    """The plugins of one process: found at construction without importing any, loaded by group when asked."""

    def __init__(
        self,
        *,
        blocked: Mapping[str, str] | None = None,
        safe: bool = False,
        entry_points: Iterable[EntryPoint] | None = None,
    ) -> None:
        """Find what is installed. `blocked`: name → why; `safe`: only our own; `entry_points`: for tests."""
        self._hooks = pluggy.PluginManager("covey")
        self._hooks.add_hookspecs(hookspecs)
        blocked = dict(blocked or {})
        self._plugins = [_Plugin(one, Home(one.name)) for one in find(entry_points)]
        for plugin in self._plugins:
            one = plugin.candidate
            if one.name in blocked:
                plugin.state, plugin.reason = "blocked", blocked[one.name] or "blocked without a reason"
            elif safe and not one.shipped:
                plugin.state, plugin.reason = "blocked", "safe mode: only covey's own plugins are loaded"
            elif one.problem:
                plugin.state, plugin.reason = "failed", one.problem
            elif one.shadowed:
                plugin.state, plugin.reason = "shadowed", one.shadowed
        names = sorted({plugin.candidate.name for plugin in self._plugins})
        self.problems = [_unknown("blocked plugin", name, names) for name in sorted(blocked) if name not in names]
        """What is wrong with the settings given: blocked names that no installed plugin has."""

    # --- finding and loading --------------------------------------------------------------------------------

    def candidates(self, group: str = "") -> list[Candidate]:
        """Return what is installed (in one group), whatever its state; imports nothing."""
        return [one.candidate for one in self._plugins if group in ("", one.candidate.group)]

    def loadable(self, group: str) -> list[Candidate]:
        """Return what `load(group)` would load: what is not blocked, shadowed, incompatible or failed."""
        return [one.candidate for one in self._in(group) if one.state in ("found", "running")]

    def load(self, group: str, only: Collection[str] | None = None, accept: Accept | None = None) -> dict[str, Any]:
        """Load the plugins of a group (those named in `only`) and return the objects of those that run, by
        name.

        `accept(name, object)` raises to refuse one. What fails is listed by `status()`; nothing of it stays
        registered. What runs already is not loaded again. Raises NotFound for a name in `only` that no plugin
        has.
        """
        plugins = self._in(group)
        names = [one.candidate.name for one in plugins]
        for name in only or ():
            if name not in names:
                raise NotFound(_unknown(f"plugin of group {group}:", name, names))
        result = {}
        for plugin in plugins:
            if only is not None and plugin.candidate.name not in only:
                continue
            if plugin.state == "found":
                self._load(plugin, accept)
            if plugin.state == "running":
                result[plugin.candidate.name] = plugin.loaded
        return result

    def _load(self, plugin: _Plugin, accept: Accept | None) -> None:
        step = "import"
        try:
            entry = EntryPoint(plugin.candidate.name, plugin.candidate.value, plugin.candidate.group)
            plugin.home = home_of(entry.module)
            loaded = _attribute(import_module(entry.module), entry)
            step = "api"
            _check_api(loaded, entry.module)
            step = "hooks"
            if plugin.candidate.group in _HOOK_GROUPS:
                self._register(plugin, loaded)
            step = "check"
            if accept is not None:
                accept(plugin.candidate.name, loaded)
        except KeyboardInterrupt:
            self._take_back(plugin)
            raise
        except (_Unfit, _Incompatible) as error:
            self._fail(plugin, str(error), "")
            plugin.state = "incompatible" if isinstance(error, _Incompatible) else "failed"
        except BaseException as error:
            self._fail(plugin, reason(step, error, plugin.home), tail(error, plugin.home))
        else:
            if plugin.state == "found":  # else its loader lost patience meanwhile
                plugin.loaded, plugin.state = loaded, "running"

    def _register(self, plugin: _Plugin, loaded: Any) -> None:
        if inspect.isclass(loaded):
            raise _Unfit(f"hooks: {plugin.candidate.value} is a class; name a module or an instance")
        try:
            self._hooks.register(loaded, name=plugin.key)
        except pluggy.PluginValidationError as error:
            raise _Unfit(f"hooks: {str(error).splitlines()[-1].strip()}") from error
        except ValueError as error:  # pluggy knows an object once
            other = self._hooks.get_name(loaded)
            raise _Unfit(f"hooks: {plugin.candidate.value} is already loaded as {other}") from error
        callers = self._hooks.get_hookcallers(loaded) or []
        known = [name for name in vars(hookspecs) if name.startswith("covey_")]
        for caller in callers:
            implementation = next(one for one in caller.get_hookimpls() if one.plugin is loaded)
            if implementation.hookwrapper or implementation.wrapper:
                raise _Unfit(f"hooks: {caller.name} is a wrapper; wrappers are not supported")
            if not caller.has_spec() and not implementation.optionalhook:
                raise _Unfit(f"hooks: {_unknown('hook', caller.name, known)}")
        if not callers:
            raise _Unfit(f"hooks: {plugin.candidate.value} has no function marked with covey.hookimpl")
        needed = _HOOK_GROUPS[plugin.candidate.group]
        if needed and needed not in [caller.name for caller in callers]:
            raise _Unfit(f"hooks: {plugin.candidate.value} does not implement {needed}")

    # --- calling --------------------------------------------------------------------------------------------

    def call(self, hook_name: str, **arguments: Any) -> list[tuple[str, Any]]:
        """Call every implementation of a hook and return (plugin name, result) of those that gave one.

        Covey's own come first, so that nobody takes a name from them; then those marked `tryfirst`; then in the
        order of loading. One that raises, or returns another type than its hookspec says, is listed as failed
        and has no part in the result.
        """
        caller = getattr(self._hooks.hook, hook_name)
        expected = typing.get_type_hints(getattr(hookspecs, hook_name)).get("return")
        plugins = {plugin.key: plugin for plugin in self._plugins}
        results = []
        for one in sorted(
            caller.get_hookimpls(),
            key=lambda one: (not plugins[one.plugin_name].candidate.shipped, not one.tryfirst, one.trylast),
        ):
            plugin = plugins[one.plugin_name]
            try:
                result = one.function(*(arguments[name] for name in one.argnames))
                wrong = _misfit(result, expected)
                if inspect.iscoroutine(result):
                    result.close()
                if wrong:
                    raise _Unfit(f"hook {hook_name}: returned {wrong}")
            except KeyboardInterrupt:
                raise
            except _Unfit as error:
                self._fail(plugin, str(error), "")
            except BaseException as error:
                self._fail(plugin, reason(f"hook {hook_name}", error, plugin.home), tail(error, plugin.home))
            else:
                if result is not None:
                    results.append((plugin.candidate.name, result))
        return results

    # --- what became of each --------------------------------------------------------------------------------

    def fail(self, group: str, name: str, why: str, detail: str = "") -> None:
        """List a plugin as failed that was found out to be so later; its hooks are not called any more."""
        for plugin in self._in(group):
            if plugin.candidate.name == name and plugin.state in ("found", "running"):
                self._fail(plugin, why, detail)

    def status(self, group: str = "") -> list[PluginStatus]:
        """Return what became of every plugin (of one group), covey's own first."""
        return [
            PluginStatus(
                name=plugin.candidate.name,
                group=plugin.candidate.group,
                package=plugin.candidate.package,
                version=plugin.candidate.version,
                state=plugin.state,
                reason=plugin.reason,
            )
            for plugin in self._plugins
            if group in ("", plugin.candidate.group)
        ]

    def why(self, name: str) -> str:
        """Return all that is known of the plugins of that name, as text for a person. Raises NotFound."""
        found = [plugin for plugin in self._plugins if plugin.candidate.name == name]
        if not found:
            raise NotFound(_unknown("plugin", name, sorted({one.candidate.name for one in self._plugins})))
        return "\n\n".join(_story(plugin) for plugin in found)

    def _in(self, group: str) -> list[_Plugin]:
        if group not in GROUPS:
            raise NotFound(_unknown("group of plugins", group, GROUPS))
        return [plugin for plugin in self._plugins if plugin.candidate.group == group]

    def _fail(self, plugin: _Plugin, why: str, detail: str) -> None:
        self._take_back(plugin)
        plugin.state, plugin.reason, plugin.detail = "failed", why, detail

    def _take_back(self, plugin: _Plugin) -> None:
        plugin.loaded = None
        if self._hooks.has_plugin(plugin.key):
            self._hooks.unregister(name=plugin.key)


def _attribute(loaded: Any, entry: EntryPoint) -> Any:
    path = entry.module
    for name in entry.attr.split(".") if entry.attr else ():
        if not hasattr(loaded, name):
            raise _Unfit(f"import: {_unknown(f'name in {path}:', name, dir(loaded))}")
        loaded, path = getattr(loaded, name), f"{path}.{name}"
    return loaded


def _misfit(result: Any, expected: Any) -> str:
    """Say how a hook's result is not of the type its hookspec gives (a class, or a list of one); "" when it is."""
    kind = typing.get_origin(expected) or expected
    if result is None or not inspect.isclass(kind):
        return ""
    if not isinstance(result, kind):
        return f"{type(result).__name__}, not {kind.__name__}"
    for item in typing.get_args(expected):
        strange = [type(each).__name__ for each in typing.cast("list[Any]", result) if not isinstance(each, item)]
        if strange:
            return f"a list with {strange[0]} in it, not {item.__name__}"
    return ""


def _check_api(loaded: Any, module: str) -> None:
    """A plugin may say which version it was written for: on what it loads, or in its module."""
    declared = getattr(loaded, "covey_api", getattr(import_module(module), "covey_api", API))
    if declared != API:
        raise _Incompatible(f"api: {module} needs covey api {declared!r}, this covey has {API}")


def _unknown(what: str, name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f"there is no {what} {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _story(plugin: _Plugin) -> str:
    one = plugin.candidate
    where = f"found by entry point {one.name!r} = {one.value} of group {one.group}" if one.value else "found"
    lines = [
        f"{one.name}: {plugin.state}" + (f": {plugin.reason}" if plugin.reason else ""),
        f"  {where} in {one.package} {one.version}".rstrip(),
        f"  this covey has plugin api {API}, python is {platform.python_version()}",
    ]
    if plugin.detail:
        lines += ["", *(f"  {line}" for line in plugin.detail.splitlines())]
    if plugin.state == "failed":
        lines += ["", "  Other plugins are not affected."]
    return "\n".join(lines)

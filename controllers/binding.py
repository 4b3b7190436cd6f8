"""A controller class and its description file, compared: do they say the same?

Knows no bus and runs none of the controller's methods. Everything that is wrong is told at once, since the author fixes
it in one go. `bind` is what a loaded controller must pass before it runs.
Odd: the entry point's name is the controller's, because it is known before anything is imported; a description that
gives another one is warned about. A controller with a method `describe` has no classes before its object is made
(`described`).
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from ..errors import PluginError
from .classes import Action, ClassDescription
from .contract import Controller, actions_of
from .description import Description, description_of_ours, load_description, made_description
from .options import in_one_line, options_model
from .values import shown

log = logging.getLogger(__name__)

OURS = f"{__package__}."
"""How the modules of covey's own controllers begin."""


@dataclass(frozen=True)
class Bound:
    """A controller class that fits its description. `actions` maps (class, action) to the method's name.

    `describes`: its object says what its classes are, and their actions come to `run`.
    """

    name: str
    controller: type[Controller]
    description: Description
    actions: dict[tuple[str, str], str]
    describes: bool = False

    @property
    def classes(self) -> tuple[ClassDescription, ...]:
        """The classes it owns."""
        return self.description.classes


def bind(name: str, found: Any) -> Bound:
    """Return the controller with its description; `name` is that of its entry point ("": any).

    Raises PluginError naming all that is wrong with the class, InvalidFile showing all findings of the file.
    """
    if not inspect.isclass(found) or not issubclass(found, Controller):
        kind = "the class" if inspect.isclass(found) else f"a {type(found).__name__}"
        what = f"{kind} {getattr(found, '__name__', '')}".strip()
        raise PluginError(f"{what} is not a covey.Controller", "name a subclass of covey.Controller in the entry point")
    options_model(found)
    marked = actions_of(found)
    if found.describe is not Controller.describe:
        problems = list(_describing(found, marked))
        if problems:
            raise PluginError(f"{found.__name__} has a method describe: {'; '.join(problems)}")
        called = name or found.__name__.lower()
        return Bound(called, found, Description(called, ()), {}, describes=True)
    path = description_file(found)
    description = description_of_ours(path) if found.__module__.startswith(OURS) else load_description(path)
    problems = list(_problems(found, description, marked))
    if problems:
        hint = f"compare it with {path.name}"
        raise PluginError(f"{found.__name__} does not fit its description: {'; '.join(problems)}", hint)
    if name and description.controller != name:
        text = "%s: 'controller: %s' is not the name of the entry point, '%s', which is used"
        log.warning(text, path, description.controller, name)
        owned = tuple(msgspec.structs.replace(one, controller=name) for one in description.classes)
        description = Description(name, owned, description.file)
    return Bound(
        name=description.controller,
        controller=found,
        description=description,
        actions={pair: methods[0] for pair, methods in marked.items()},
    )


def described(bound: Bound, classes: Any) -> Bound:
    """Return the controller with the classes that its object gave. Raises PluginError naming all that is wrong."""
    if not isinstance(classes, Mapping):
        raise PluginError(f"describe: returned {shown(classes)}, not a mapping of classes")
    if not classes:
        return replace(bound, description=Description(bound.name, ()))
    description, findings = made_description(bound.name, classes)
    if description is None:
        raise PluginError(f"describe: its classes are wrong: {in_one_line(findings)}")
    with_actions = [one.name for one in description.classes if one.actions]
    if with_actions and bound.controller.run is Controller.run:
        raise PluginError(f"describe: {with_actions[0]} has actions, and there is no method run")
    problems = list(_readable(bound.controller, description))
    if problems:
        raise PluginError(f"describe: {'; '.join(problems)}")
    return replace(bound, description=description)


def description_file(controller: type[Controller]) -> Path:
    """Return the path of the description file beside the controller's module. Raises PluginError."""
    if not isinstance(controller.description, str) or not controller.description:
        raise PluginError(
            f"{controller.__name__} names no description file",
            f'write description = "{controller.__name__.lower()}.yaml" in the class, and the file beside the module',
        )
    owner = next(one for one in controller.__mro__ if "description" in vars(one))
    file = getattr(sys.modules.get(owner.__module__), "__file__", None)
    if not file:
        raise PluginError(f"the module {owner.__module__} of {controller.__name__} has no file to look beside")
    path = Path(file).parent / controller.description
    if not path.is_file():
        files = sorted(one.name for one in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        near = get_close_matches(path.name, files, n=1)
        raise PluginError(
            f"the description file {path} of {controller.__name__} is not there",
            f"did you mean {near[0]}?" if near else "does the package ship its YAML files? (package-data)",
        )
    return path


def _problems(
    controller: type[Controller], description: Description, marked: dict[tuple[str, str], list[str]]
) -> Iterator[str]:
    if controller.discover is Controller.discover:
        yield "it has no method discover"
    yield from _readable(controller, description)
    for (class_name, action_name), methods in sorted(marked.items()):
        yield from _marked(controller, description, class_name, action_name, methods)
    for one in description.classes:
        for action in one.actions:
            if (one.name, action.name) not in marked:
                yield f"the action {one.name}.{action.name} is declared, and no method is marked with it"


def _readable(controller: type[Controller], description: Description) -> Iterator[str]:
    dynamic = [one.name for one in description.classes if any(found.kind == "dynamic" for found in one.attributes)]
    if dynamic and controller.read is Controller.read:
        yield f"{dynamic[0]} has dynamic attributes, and there is no method read"


def _describing(controller: type[Controller], marked: Mapping[tuple[str, str], list[str]]) -> Iterator[str]:
    if controller.discover is Controller.discover:
        yield "it has no method discover"
    if controller.description:
        yield f"it names the description file {controller.description!r} as well: keep one of the two"
    for (class_name, action_name), methods in sorted(marked.items()):
        yield f"the action {class_name}.{action_name} of method {methods[0]} must come to run instead"


def _marked(
    controller: type[Controller], description: Description, class_name: str, action_name: str, methods: list[str]
) -> Iterator[str]:
    place = f"the action {class_name}.{action_name} of method {methods[0]}"
    found = description.get(class_name)
    if found is None:
        yield f"{place}: there is no class {class_name!r}{_near(class_name, [one.name for one in description.classes])}"
        return
    action = found.action(action_name)
    if action is None:
        yield f"{place} is not declared{_near(action_name, [one.name for one in found.actions])}"
        return
    if len(methods) > 1:
        yield f"the action {class_name}.{action_name} is marked on several methods: {', '.join(methods)}"
    for method in methods:
        yield from _signature(place, getattr(controller, method), action)


def _signature(place: str, method: Callable[..., Any], action: Action) -> Iterator[str]:
    parameters = list(inspect.signature(method).parameters.values())[1:]  # without self
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if not positional and not any(one.kind is one.VAR_POSITIONAL for one in parameters):
        yield f"{place}: its first parameter must take the resource"
    named = {one.name: one for one in parameters[1:] if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)}
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters)
    declared = [one.name for one in action.arguments]
    for argument in declared:
        if argument not in named and not takes_all:
            yield f"{place}: it does not take the declared argument {argument!r}"
    for name, parameter in named.items():
        if name not in declared and parameter.default is parameter.empty:
            yield f"{place}: it needs {name!r}, which is no declared argument{_near(name, declared)}"


def _near(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""

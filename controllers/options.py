"""The options of a controller: which model it has for them, and what a node's YAML gives, checked against it.

A controller names its model by annotating `options` with it: `options: GpuOptions`, a pydantic model. One annotation
says both what may be written and what type `self.options` has. Knows no bus. Odd: the same checks run twice, in
`covey config check` with the file at hand, so that findings have their place, and where the controller is made.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..config.document import read_bytes
from ..config.findings import Finding
from ..config.node import AnyOptions, OptionsOf
from ..errors import PluginError
from ..plugins.candidates import Candidate
from ..plugins.manager import PluginManager
from .contract import GROUP, Controller, Node
from .description import description_files


def options_model(controller: type[Controller]) -> type[BaseModel] | None:
    """Return the model of a controller's options, None when it has none. Raises PluginError."""
    hint = "annotate it with a pydantic model: options: GpuOptions"
    try:
        found = typing.get_type_hints(controller)["options"]
    except Exception as error:
        raise PluginError(f"the annotations of {controller.__name__} cannot be read: {error}", hint) from error
    if found is Any:
        return None
    if not inspect.isclass(found) or not issubclass(found, BaseModel):
        raise PluginError(f"'options' of {controller.__name__} is annotated with {found!r}, no pydantic model", hint)
    return found


def make(
    controller: type[Controller],
    given: Mapping[str, Any] | None = None,
    folder: str | Path = "",
    node: Node | None = None,
) -> Controller:
    """Return a controller's object, `options` and `node` set before its `__init__` runs.

    `given` are the options as the YAML has them; relative paths in them count from `folder`. Raises PluginError naming
    all that is wrong with them, and whatever the controller raises.
    """
    model = options_model(controller)
    made = controller.__new__(controller)
    made.node = node or Node()
    if model is not None:
        made.options = _checked(model, given or {}, folder)
    elif given:
        raise PluginError(f"{controller.__name__} has no options, and this node's YAML gives it some", "leave them out")
    made.__init__()  # type: ignore[misc]
    return made


def has_work(candidate: Candidate, settings: Mapping[str, Any]) -> bool:
    """Whether a controller may have a class, by the settings of the node's YAML for controllers; imports nothing of it.

    One of covey's own without a description file makes its classes from its options, and without any it has none.
    """
    given = (settings.get(candidate.name) or {}).get("options")
    return bool(given) or not candidate.shipped or bool(description_files(candidate.value.partition(":")[0]))


def known_options(plugins: PluginManager) -> OptionsOf:
    """Return who tells `covey.config` the models of options; it imports one of covey's own controllers when asked.

    Options of other packages are checked where their code runs, so anything passes here.
    """
    ours = {one.name for one in plugins.candidates(GROUP) if one.shipped}

    def options_of(name: str) -> type[BaseModel] | None:
        found = plugins.load(GROUP, only=[name]).get(name) if name in ours else None
        return AnyOptions if found is None else options_model(found)

    return options_of


def findings_in_files(model: type[BaseModel], given: Mapping[str, Any], folder: str | Path) -> list[Finding]:
    """Return what is wrong in the files that options name, by the method `findings` of their model, if it has one."""
    findings = getattr(_checked(model, given, folder), "findings", None)
    return list(findings()) if callable(findings) else []


def in_one_line(findings: list[Finding]) -> str:
    """Return what is wrong as one text, where the places mean nothing to a person."""
    return "; ".join(one.message + (f" ({', '.join(one.hint.splitlines())})" if one.hint else "") for one in findings)


def _checked(model: type[BaseModel], given: Mapping[str, Any], folder: str | Path) -> BaseModel:
    text = json.dumps(given, ensure_ascii=False).encode()  # JSON is YAML, so it takes the way of every file
    found, findings = read_bytes(text, model, file="options", context={"folder": Path(folder)}, literal=True)
    if found is None:
        raise PluginError(f"its options are wrong: {in_one_line(findings)}", "`covey config check` tells the places")
    return found

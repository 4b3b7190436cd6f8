"""The controller of classes made from commands: whatever a command can say becomes a resource.

`file.py` reads the files that the node's YAML names, `formats.py` what commands print. Odd: without a file it has no
class and imports neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ...config.node import Settings
from ...config.values import ExistingFile
from ...errors import PluginError
from ..contract import Controller, Failed, Found, Resource

if TYPE_CHECKING:
    from ...config.findings import Finding
    from ..commands import Done
    from .file import Read

REPLY = 0.2
"""Seconds before an action's deadline at which its command is killed, so that the reason still arrives."""


class ExecOptions(Settings):
    """Which files make classes."""

    files: tuple[ExistingFile, ...] = Field(
        default=(),
        description="Resource description files with a part `exec` in each class; relative paths count from this "
        "file's folder. Default: none.",
        examples=[["raid.yaml"]],
    )

    def findings(self) -> list[Finding]:
        """What is wrong in the files themselves, for `covey config check`."""
        from .file import read_file

        return [one for path in self.files for one in read_file(path)[1]]


class Exec(Controller):
    """Commands as resources."""

    options: ExecOptions

    def __init__(self) -> None:
        self._files: dict[str, Read] = {}
        """By class: the file that makes it."""
        self._described: dict[str, Any] = {}

    def describe(self) -> Mapping[str, Any]:
        """The classes of all files. Raises PluginError with what is wrong in them, each with its place."""
        if not self.options.files:
            return {}
        from ..description import made_description
        from .file import read_file

        classes: dict[str, Any] = {}
        wrong = []
        for path in self.options.files:
            found, findings = read_file(path)
            wrong += [f"{one.file}:{one.line}:{one.column}: {one.message}" for one in findings]
            for name in found.classes if found is not None else ():
                if name in self._files:
                    wrong.append(f"{path}: the class {name} is in another of the files, too")
            if found is not None:
                self._files |= dict.fromkeys(found.classes, found)
                classes |= found.classes
        if wrong:
            raise PluginError("; ".join(wrong), "correct the files that `controllers: {exec: {options: …}}` names")
        made, _ = made_description("exec", classes)
        self._described = {one.name: one for one in made.classes} if made is not None else {}
        return classes

    def discover(self) -> Iterator[Found]:
        """What each class's file lists, or its command prints."""
        for name, file in self._files.items():
            section, keys = file.sections[name], self._described[name].key
            resources = section.resources
            if section.discover is not None:
                resources = self._listed(name, self._run(name, section.discover, section.timeout))
            for one in resources:
                key = {part: value for part, value in one.items() if part in keys}
                yield Found(name, key=key, **{part: value for part, value in one.items() if part not in keys})

    def read(self, resource: Resource) -> dict[str, Any]:
        """What the class's command prints of one resource."""
        from . import reading

        name = resource.class_name
        section = self._files[name].sections[name]
        if section.command is None:
            return {}
        done = self._run(name, section.command, section.timeout, resource)
        return reading.attributes(section, self._described[name], resource.key, done)

    def run(self, resource: Resource, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Run the action's command; what it prints is read for its declared result alone."""
        from . import reading

        name = resource.class_name
        declared = self._described[name].action(action)
        command = self._files[name].sections[name].actions[action]
        timeout = max(declared.deadline - REPLY, declared.deadline / 2)
        done = self._run(name, command, timeout, resource, arguments)
        if done.code != 0:
            raise Failed(f"{command[0]}: {done.reason}")
        return reading.result(declared, done, command[0])

    def _listed(self, name: str, done: Done) -> list[dict[str, Any]]:
        from . import reading

        return reading.listed(self._described[name], self._files[name].sections[name], done)

    def _run(
        self,
        name: str,
        command: tuple[str, ...],
        timeout: float,
        resource: Resource | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> Done:
        from .. import commands
        from .file import filled

        words = filled(command, resource.key if resource is not None else {}, arguments)
        env = commands.environment(self.node, resource)
        return commands.run(words, env=env, timeout=timeout, folder=self._files[name].folder)

"""The classes known in one place: which controller owns each, in which version, and what must be known first.

Knows no bus and no node; the Resource Manager keeps one for its node and compares with those of others. A class belongs
to one controller: the first that brings it keeps it, and the other is told whose it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches

import msgspec

from ..errors import CycleError, PluginError, ResourceNotFound
from .classes import ClassDescription


class Version(msgspec.Struct, frozen=True):
    """What a node says of a class so that others can compare: its version and its fingerprint."""

    version: int
    fingerprint: str


class Catalog:
    """Classes by name."""

    def __init__(self) -> None:
        self._classes: dict[str, ClassDescription] = {}

    def add(self, controller: str, classes: Iterable[ClassDescription]) -> None:
        """Take the classes of a controller, in place of those it had.

        Raises PluginError naming the owner when another controller has one of them; nothing is changed then.
        """
        new = {one.name: one for one in classes}
        for name in new:
            owner = self._classes.get(name)
            if owner is not None and owner.controller != controller:
                raise PluginError(
                    f"the class {name} of the controller {controller} belongs to the controller {owner.controller}",
                    "a class has one controller: rename the class, or block one of the two",
                )
        self.remove(controller)
        self._classes.update(new)

    def remove(self, controller: str) -> None:
        """Forget the classes of a controller."""
        self._classes = {name: one for name, one in self._classes.items() if one.controller != controller}

    def get(self, name: str) -> ClassDescription:
        """Return a class. Raises ResourceNotFound with the nearest name."""
        found = self._classes.get(name)
        if found is None:
            near = get_close_matches(name, list(self._classes), n=1)
            known = f"known: {', '.join(sorted(self._classes)) or 'none'}"
            hint = f"did you mean {near[0]}? {known}" if near else known
            raise ResourceNotFound(f"there is no class {name!r}", hint)
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[ClassDescription]:
        return iter([self._classes[name] for name in sorted(self._classes)])

    def __len__(self) -> int:
        return len(self._classes)

    def of(self, controller: str) -> list[ClassDescription]:
        """Return the classes of a controller."""
        return [one for one in self if one.controller == controller]

    def in_order(self) -> list[ClassDescription]:
        """Return all classes, each after those it depends on; by name where there is a choice.

        A class that nobody brings is no obstacle. Raises CycleError that prints the circle.
        """
        done: dict[str, ClassDescription] = {}
        for one in self:
            self._visit(one, (), done)
        return list(done.values())

    def _visit(self, one: ClassDescription, way: tuple[str, ...], done: dict[str, ClassDescription]) -> None:
        if one.name in way:
            circle = (*way[way.index(one.name) :], one.name)
            raise CycleError(f"classes depend on each other in a circle: {' -> '.join(circle)}")
        if one.name in done:
            return
        for needed in sorted(one.depends):
            if needed in self._classes:
                self._visit(self._classes[needed], (*way, one.name), done)
        done[one.name] = one

    def versions(self) -> dict[str, Version]:
        """Return what other nodes compare with theirs."""
        return {one.name: Version(one.version, one.fingerprint) for one in self}

    def differences(self, theirs: Mapping[str, Version]) -> list[str]:
        """Return a sentence for each class that both sides have and understand differently."""
        result = []
        for name, mine in self.versions().items():
            other = theirs.get(name)
            if other is None or other == mine:
                continue
            if other.version != mine.version:
                result.append(f"{name}: version {mine.version} here, {other.version} there")
            else:
                text = f"version {mine.version} on both, but described differently"
                result.append(f"{name}: {text} ({mine.fingerprint} here, {other.fingerprint} there)")
        return result

"""The classes of one node in one place: which controller owns each, in which version, and what must be known first.

Knows no bus and no node; the Resource Manager keeps one. A class belongs to one controller: the first that brings it
keeps it, and the other is told whose it is; those of covey's own controllers are theirs before they bring them. Whose a
class is, is what the caller says, not what its description says: that was written by somebody else.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from ..errors import CycleError, PluginError, ResourceNotFound
from .classes import ClassDescription

Versions = dict[str, tuple[int, str, str]]
"""By class name: version, fingerprint of the description, name of the controller. What nodes compare."""


class Catalog:
    """Classes by name, each with its controller."""

    def __init__(self) -> None:
        self._classes: dict[str, tuple[str, ClassDescription]] = {}
        self._reserved: dict[str, str] = {}

    def reserve(self, versions: Versions) -> None:
        """Keep these classes for their controllers, so that no other package takes one by being quicker."""
        self._reserved = {name: controller for name, (_, _, controller) in versions.items()}

    def add(self, controller: str, classes: Iterable[ClassDescription]) -> None:
        """Take the classes of a controller, in place of those it had.

        Raises PluginError naming the owner when another controller has one of them, and CycleError when controllers
        would wait for each other's classes in a circle; nothing is changed then.
        """
        new = {one.name: (controller, one) for one in classes}
        for name in sorted(new):
            owner = self.owner(name) or self._reserved.get(name, "")
            if owner not in ("", controller):
                raise PluginError(
                    f"class {name} belongs to the controller '{owner}' already",
                    "a class has one controller: rename the class, or block one of the two",
                )
        before = self._classes
        self._classes = {name: one for name, one in before.items() if one[0] != controller} | new
        circle = self._circle((controller,))
        if circle:
            self._classes = before
            raise CycleError(f"its classes depend on others that depend on them: {' -> '.join(circle)}")

    def owner(self, name: str) -> str:
        """Return the controller that has a class; empty when none has."""
        return self._classes[name][0] if name in self._classes else ""

    def get(self, name: str) -> ClassDescription:
        """Return a class. Raises ResourceNotFound with the nearest name."""
        if name not in self._classes:
            near = get_close_matches(name, list(self._classes), n=1)
            known = f"known: {', '.join(sorted(self._classes)) or 'none'}"
            raise ResourceNotFound(f"there is no class '{name}'", f"did you mean {near[0]}? {known}" if near else known)
        return self._classes[name][1]

    def awaited(self, controller: str) -> tuple[list[str], list[str]]:
        """Return what the classes of a controller depend on: other controllers, and classes that nobody brings yet."""
        needed = {each for owner, one in self._classes.values() if owner == controller for each in one.depends}
        owners = {self.owner(each) for each in needed} - {"", controller}
        return sorted(owners), sorted(each for each in needed if not self.owner(each))

    def versions(self) -> Versions:
        """Return what other nodes compare with theirs."""
        found = sorted(self._classes.items())
        return {name: (one.version, one.fingerprint, controller) for name, (controller, one) in found}

    def _circle(self, way: tuple[str, ...]) -> tuple[str, ...]:
        """Return the way from its first controller back to it, if there is one."""
        for needed in self.awaited(way[-1])[0]:
            if needed == way[0]:
                return (*way, needed)
            found = self._circle((*way, needed)) if needed not in way else ()
            if found:
                return found
        return ()

"""The way back from an error of pydantic to the place in the file where it belongs.

Knows trees and annotations, no file and no particular model. One place gets one finding: what comes second
there is a consequence of the first. A misspelt key explains the missing one it stands for, and of the
branches of a union only those that fit best are heard.
"""

from __future__ import annotations

from typing import NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from . import wording
from .annotations import fields_at, home_of
from .findings import Finding, Place, Severity, Source
from .tree import Scalar, Section, Sequence, Tree


class Problem(NamedTuple):
    """What a `check` found: where (keys and list positions from the top of the file), and the words."""

    path: wording.Path
    code: str
    message: str
    hint: str = ""
    severity: Severity = "error"
    at_key: bool = False


class Part(NamedTuple):
    """What a `check` found to have a model of its own, which the file's model cannot know."""

    path: wording.Path
    model: type[BaseModel]


class _Step(NamedTuple):
    """One error of pydantic with its path in the file, and the branches of unions it went through."""

    error: ErrorDetails
    path: wording.Path
    branches: dict[wording.Path, str]
    at_key: bool


class Walker:
    """Collects the findings of one file, each at its place."""

    def __init__(self, source: Source, model: type[BaseModel], root: Tree, findings: list[Finding]) -> None:
        self.source = source
        self.model = model
        self.root = root
        self.findings = findings
        self.taken = {(finding.line, finding.column) for finding in findings}
        self._parts: list[Part] = []

    def add(self, found: list[ErrorDetails]) -> None:
        steps = _best_branches([self._step(error) for error in found])
        unknown = [step for step in steps if step.error["type"] == "extra_forbidden"]
        meant = {self._unknown_key(step) for step in unknown}
        wanted: dict[wording.Path, list[str]] = {}
        for step in steps:
            if step.error["type"] == "missing":
                self._missing(step, meant)
            elif step.error["type"] != "extra_forbidden":
                self._value(step, wanted)

    def part(self, part: Part, found: list[ErrorDetails]) -> None:
        """Add the errors of a part's own model."""
        self._parts.append(part)
        self.add([{**error, "loc": (*part.path, *error["loc"])} for error in found])

    def problem(self, problem: Problem) -> None:
        """Add what a check found, unless its place has a finding already."""
        found = self._tree(problem.path)
        if not _is_broken(found):
            place = self._place(problem.path, problem.at_key)
            self._report(place, problem.code, problem.message, problem.hint, problem.severity)

    def _report(self, place: Place, code: str, message: str, hint: str, severity: Severity = "error") -> None:
        if place[:2] in self.taken:
            return
        self.taken.add(place[:2])
        self.findings.append(self.source.finding(code, place, message, hint, severity))

    def _step(self, error: ErrorDetails) -> _Step:
        """Resolve pydantic's path: keys and positions that are in the tree stay, names of branches go."""
        tree: Tree | None = self.root
        path: wording.Path = ()
        branches: dict[wording.Path, str] = {}
        parts = list(error["loc"])
        at_key = bool(parts) and parts[-1] == "[key]"
        parts = parts[:-1] if at_key else parts
        for position, part in enumerate(parts):
            last = position == len(parts) - 1
            child = _child(tree, part)
            if child is not None or (last and error["type"] == "missing"):
                tree = child
                path = (*path, part)
            else:
                branches[path] = str(part)
        at = error.get("ctx", {}).get("at", ())
        return _Step(error, (*path, *at), branches, at_key or bool(error.get("ctx", {}).get("key")))

    def _unknown_key(self, step: _Step) -> wording.Path | None:
        """Report an unknown key; return the path of the key that was meant, if one is near."""
        key, parent = str(step.path[-1]), step.path[:-1]
        section = self._tree(parent)
        allowed = set(self._fields(parent))
        words = wording.unknown_key(key, parent, allowed, home_of(key, self.model))
        self._report(self._place(step.path, at_key=True), words.code, words.message, words.hint)
        present = set(section.items) if isinstance(section, Section) else set()
        near = wording.nearest(key, allowed - present)
        return (*parent, near) if near else None

    def _fields(self, path: wording.Path) -> dict[str, FieldInfo]:
        """Return the fields allowed at a path, by the model of the part that it is in."""
        for part in self._parts:
            if path[: len(part.path)] == part.path:
                return fields_at(part.model, path[len(part.path) :])
        return fields_at(self.model, path)

    def _missing(self, step: _Step, meant: set[wording.Path | None]) -> None:
        parent = step.path[:-1]
        section = self._tree(parent)
        if isinstance(step.path[-1], int):
            self._report(self._place(parent, False), "bad_length", f"{wording.where(parent)} has too few items", "")
            return
        if step.path in meant or (isinstance(section, Section) and section.incomplete):
            return
        key = str(step.path[-1])
        field = self._fields(parent).get(key)
        example = wording.as_yaml(field.examples[0]) if field is not None and field.examples else "…"
        hint = f"write {key}: {example}"
        # Several keys may be missing in one section and share its place, so it does not count as taken.
        place = self._place(parent, at_key=True)
        message = f"{wording.where(parent)} has no '{key}'"
        self.findings.append(self.source.finding("missing", place, message, hint))

    def _value(self, step: _Step, wanted: dict[wording.Path, list[str]]) -> None:
        found = self._tree(step.path)
        if _is_broken(found) or _only_seems_short(step.error, found):
            return
        words = wording.in_words(step.error, step.path, found)
        place = self._place(step.path, step.at_key)
        if words.wanted and wanted.get(step.path):
            # The branches of a union want different things of one value: say them all in one finding.
            kinds = wanted[step.path]
            if words.wanted not in kinds:
                kinds.append(words.wanted)
                words = wording.wrong_type(wording.where(step.path), " or ".join(kinds), found)
                self.findings = [old for old in self.findings if (old.line, old.column) != place[:2]]
                self.taken.discard(place[:2])
        elif words.wanted and place[:2] not in self.taken:
            wanted[step.path] = [words.wanted]
        self._report(place, words.code, words.message, words.hint)

    def _tree(self, path: wording.Path) -> Tree | None:
        tree: Tree | None = self.root
        for part in path:
            tree = _child(tree, part)
        return tree

    def _place(self, path: wording.Path, at_key: bool) -> Place:
        """Return the place of a value, or of its key; of the nearest thing around it if it is not there."""
        tree: Tree = self.root
        key: Place | None = None
        for part in path:
            child = _child(tree, part)
            if child is None:
                break
            key = tree.keys.get(str(part)) if isinstance(tree, Section) else None
            tree = child
        if at_key and key is not None:
            return key
        return tree.place


def _is_broken(found: Tree | None) -> bool:
    return isinstance(found, Scalar) and found.broken


def _only_seems_short(error: ErrorDetails, found: Tree | None) -> bool:
    """Say whether a list is long enough after all: pydantic counts only the items that are right."""
    least = error.get("ctx", {}).get("min_length", 0)
    return error["type"] == "too_short" and isinstance(found, Sequence) and len(found.items) >= least


def _child(tree: Tree | None, part: str | int) -> Tree | None:
    if isinstance(tree, Section):
        return tree.items.get(str(part))
    if isinstance(tree, Sequence) and isinstance(part, int) and part < len(tree.items):
        return tree.items[part]
    return None


def _best_branches(steps: list[_Step]) -> list[_Step]:
    """Of each union keep the branches of the right kind with the fewest errors; all, if none is of the right kind."""
    points = {point for step in steps for point in step.branches}
    for point in sorted(points, key=lambda path: (-len(path), str(path))):
        errors: dict[str, int] = {}
        unfit: set[str] = set()
        for step in steps:
            if point in step.branches:
                branch = step.branches[point]
                errors[branch] = errors.get(branch, 0) + 1
                if step.path == point and wording.is_mismatch(step.error["type"]):
                    unfit.add(branch)
        fit = {branch: number for branch, number in errors.items() if branch not in unfit}
        if fit:
            best = min(fit.values())
            steps = [
                step
                for step in steps
                if fit.get(step.branches.get(point, ""), best) == best and step.branches.get(point) not in unfit
            ]
    return steps

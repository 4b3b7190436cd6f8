"""Which plugins are installed, read from package metadata alone: no line of any plugin runs here.

Knows nothing of loading. Goes through the distributions one by one, so that a package with unreadable
metadata is a listed candidate with a problem instead of the end of the search. Of two candidates with one
name in one group the one shipped with covey wins, else the first by package name; the other is shadowed, and
says by whom.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, EntryPoint, distributions

OURS = "covey"
GROUPS = ("covey.components", "covey.controllers", "covey")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Candidate:
    """An installed plugin. `problem` says why it cannot be loaded, `shadowed` who has its name."""

    name: str
    group: str
    package: str
    version: str
    value: str
    problem: str = ""
    shadowed: str = ""

    @property
    def shipped(self) -> bool:
        """Whether it belongs to covey itself."""
        return self.package == OURS


def find(entry_points: Iterable[EntryPoint] | None = None) -> list[Candidate]:
    """Return the installed plugins (or those given), covey's own first, then by package and name."""
    found = _installed() if entry_points is None else (_candidate(entry, *_about(entry.dist)) for entry in entry_points)
    ordered = sorted(found, key=lambda one: (not one.shipped, _normal(one.package), one.group, one.name, one.value))
    owners: dict[tuple[str, str], Candidate] = {}
    result = []
    for one in ordered:
        if one.problem:  # what cannot be loaded takes no name from what can
            result.append(one)
            continue
        owner = owners.setdefault((one.group, one.name), one)
        result.append(one if owner is one else _shadow(one, owner))
    return result


def _installed() -> Iterator[Candidate]:
    seen: set[str] = set()
    for distribution in distributions():
        text = _entry_points_text(distribution)
        if OURS not in text:  # the cheap look first: most packages of an environment are nothing to us
            continue
        package, version = _about(distribution)
        if not package or _normal(package) in seen or not _is_used(package, text):
            continue
        seen.add(_normal(package))
        try:
            entries = [entry for entry in distribution.entry_points if entry.group in GROUPS]
        except Exception as error:
            yield Candidate(
                name=_normal(package),
                group="",
                package=package,
                version=version,
                value="",
                problem=f"metadata: entry_points.txt of {package} cannot be read: {error}",
            )
            continue
        yield from (_candidate(entry, package, version) for entry in entries)


def _candidate(entry: EntryPoint, package: str, version: str) -> Candidate:
    problem = ""
    if not _NAME.fullmatch(entry.name):
        problem = f"name: {entry.name!r} is not a plugin name: letters, digits, '-' and '_', at most 64 of them"
    elif EntryPoint.pattern.match(entry.value) is None:
        problem = f"metadata: {entry.value!r} is not of the form package.module:name"
    return Candidate(
        name=entry.name,
        group=entry.group,
        package=package or "unknown",
        version=version,
        value=entry.value,
        problem=problem,
    )


def _shadow(one: Candidate, owner: Candidate) -> Candidate:
    if one.package == owner.package:
        reason = f"{one.package} names {one.name!r} twice: {owner.value} is used, {one.value} is not"
    else:
        because = "covey's own plugins come first" if owner.shipped else "it is the first by package name"
        reason = (
            f"both {owner.package} and {one.package} have a plugin {one.name!r}; {owner.package} is used: {because}"
        )
    return replace(one, shadowed=reason)


def _about(distribution: Distribution | None) -> tuple[str, str]:
    """Return name and version of a package. Each look at `metadata` parses all of it anew, so there is one."""
    try:
        if distribution is None:
            return "", ""
        metadata = distribution.metadata
        return str(metadata["Name"] or ""), str(metadata["Version"] or "")
    except Exception:  # metadata that cannot be read is what this module is there to survive
        return "", ""


def _entry_points_text(distribution: Distribution) -> str:
    try:
        return distribution.read_text("entry_points.txt") or ""
    except Exception:  # not UTF-8, not readable: it cannot be told whether it speaks of us
        return ""


def _is_used(package: str, text: str) -> bool:
    """Whether this distribution is the one of its name that an import would find: the first on sys.path."""
    try:
        return _entry_points_text(Distribution.from_name(package)) == text
    except Exception:
        return False


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()

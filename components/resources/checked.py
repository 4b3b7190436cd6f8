"""Hold a controller to what its classes declare, before anything of its answers is kept.

Knows no bus and no time. The controller's own process checks too and says what it left out (`findings`), but it runs
other people's code: nothing that comes from there is believed. What fits is kept, what does not becomes a complaint.
Odd: where something was found whose key cannot be understood, its class is `unclear`: it may be a resource known from
before, so none of that class is taken for gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from ...controllers.classes import ClassDescription, from_wire, resource_id, resource_path
from ...controllers.conformance import REDACTED, Misfit, check_key, check_reported
from .settings import Settings
from .stored import Resource

BAD_KEY = "plugin.bad_key"
LONGEST = 200
"""Characters of one complaint: it quotes what a controller said."""


class KnownClass(msgspec.Struct, frozen=True):
    """A class of a controller with its intervals.

    `poll_every` is None where nothing is dynamic; 0 for either interval: only with a discovery, or when asked.
    """

    description: ClassDescription
    discover_every: float
    poll_every: float | None


class Checked(msgspec.Struct, frozen=True):
    """What of a discovery holds: resources and their dynamic attributes by path, and what was wrong in words."""

    resources: dict[str, Resource]
    values: dict[str, dict[str, Any]]
    unclear: frozenset[str]
    complaints: tuple[str, ...] = ()
    removed: frozenset[str] = frozenset()
    """Paths of what is known to be gone, also where something is unclear."""


def known_classes(controller: str, wires: Iterable[Any], settings: Settings) -> dict[str, KnownClass]:
    """Read the descriptions a controller gave. Raises ValueError: without its classes it cannot be used at all."""
    classes: dict[str, KnownClass] = {}
    for wire in wires:
        try:
            description = from_wire(wire)
        except msgspec.ValidationError as problem:
            raise ValueError(str(problem)) from None
        if description.name in classes:
            raise ValueError(f"class {description.name} is described twice")
        dynamic = any(attribute.kind == "dynamic" for attribute in description.attributes)
        poll = settings.polls.get(controller, description.poll_every)
        classes[description.name] = KnownClass(description, description.discover_every, poll if dynamic else None)
    return classes


def checked_found(
    node: int,
    classes: Mapping[str, KnownClass],
    found: Iterable[Any],
    findings: Iterable[Any] = (),
    stored: Callable[[str], Mapping[str, Any]] = lambda path: {},
) -> Checked:
    """Check everything that one discovery found, and what the controller's process said against it.

    Of what the controller does not report, a writable attribute stays as the registry has it (`stored`, by path), any
    other persistent one gets its default.
    """
    resources: dict[str, Resource] = {}
    values: dict[str, dict[str, Any]] = {}
    unclear: set[str] = set()
    complaints = _messages(findings)
    for finding in findings:
        known = classes.get(str(finding.get("class_name"))) if isinstance(finding, Mapping) else None
        if known and (finding.get("code") == BAD_KEY or finding.get("attribute") in known.description.key):
            unclear.add(known.description.name)
    for item in found:
        cls = item.get("class") if isinstance(item, Mapping) else None
        known = classes.get(cls) if isinstance(cls, str) else None
        if known is None:
            complaints.append(f"found something of a class it does not have: {cls!r}"[:LONGEST])
            continue
        description = known.description
        key, misfits = check_key(description, item.get("key"))
        if key is None:
            unclear.add(description.name)
            complaints += _texts(misfits)
            continue
        # In the declared order, whatever order the controller used: it is how the key is shown and typed.
        key = {name: key[name] for name in description.key}
        identity = resource_id(node, key)
        path = resource_path(description.name, identity)
        if path in resources:
            complaints.append(f"found {description.name} {key} twice; the first one counts"[:LONGEST])
            continue
        attributes = item.get("attributes")
        good, misfits = check_reported(description, _open(description, attributes))
        complaints += _texts(misfits)
        reported = attributes if isinstance(attributes, Mapping) else {}
        persistent, dynamic = _split(description, _unreported(description, reported, stored(path)) | good)
        resources[path] = Resource(description.name, identity, key, persistent, description.version)
        values[path] = dynamic
    return Checked(resources, values, frozenset(unclear), tuple(complaints))


def checked_values(known: KnownClass, attributes: Any, findings: Iterable[Any] = ()) -> tuple[dict[str, Any], str]:
    """Return the dynamic attributes of a read that fit, and a complaint about the rest (empty: none)."""
    good, misfits = check_reported(known.description, _open(known.description, attributes))
    complaint = "; ".join([*_messages(findings), *_texts(misfits)])
    dynamic = {
        one.name: one.default for one in known.description.attributes if one.kind == "dynamic" and one.has_default
    } | _split(known.description, good)[1]
    if isinstance(attributes, Mapping):
        hidden = [one.name for one in known.description.attributes if one.sensitive and one.kind == "dynamic"]
        dynamic |= {name: REDACTED for name in hidden if attributes.get(name) is not None}
    return dynamic, complaint


def checked_answer(
    description: ClassDescription, attributes: Any, findings: Iterable[Any], asked: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """Return the persistent and the dynamic attributes that hold after a change, and complaints about the answer.

    What was `asked` holds where the controller does not say otherwise.
    """
    good, misfits = check_reported(description, _open(description, attributes))
    persistent, dynamic = _split(description, _open(description, asked) | good)
    return persistent, dynamic, tuple(dict.fromkeys([*_messages(findings), *_texts(misfits)]))


def _unreported(
    description: ClassDescription, reported: Mapping[str, Any], stored: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what holds of the persistent attributes that the controller says nothing about."""
    found: dict[str, Any] = {}
    for one in description.attributes:
        if one.kind == "dynamic" or one.sensitive or one.name in reported or one.name in description.key:
            continue
        if one.writable and one.name in stored:
            good, misfits = check_reported(description, {one.name: stored[one.name]})
            if not misfits:  # else it is of another version of the class
                found |= good
                continue
        if one.has_default:
            found[one.name] = one.default
    return found


def _open(description: ClassDescription, attributes: Any) -> Any:
    """Leave out sensitive attributes: they come hidden already, and what stands for them fits no type."""
    if not isinstance(attributes, Mapping):
        return {} if attributes is None else attributes
    hidden = {one.name for one in description.attributes if one.sensitive}
    return {name: value for name, value in attributes.items() if name not in hidden}


def _split(description: ClassDescription, good: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the persistent attributes beside the key, and the dynamic ones; neither has sensitive ones."""
    persistent = {}
    dynamic = {}
    for attribute in description.attributes:
        if attribute.name not in good or attribute.name in description.key:
            continue
        if attribute.kind == "dynamic":
            dynamic[attribute.name] = good[attribute.name]
        else:
            persistent[attribute.name] = good[attribute.name]
    return persistent, dynamic


def _texts(misfits: Iterable[Misfit]) -> list[str]:
    return [misfit.message[:LONGEST] for misfit in misfits]


def _messages(findings: Iterable[Any]) -> list[str]:
    return [str(found.get("message", found) if isinstance(found, Mapping) else found)[:LONGEST] for found in findings]

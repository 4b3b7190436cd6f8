"""Rows of `resource ls`: persistent attributes from the registry, dynamic ones from the nodes that answered.

Pure functions over plain data. A row is `{class, id, key, node, attributes, age_s}`; the key is among the attributes
too, as a description declares it there. `age_s` is the age of the dynamic attributes (of the last discovery, for a
class that has none), and None when its node did not answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import Ambiguous, ResourceNotFound


def stored_rows(
    items: Iterable[Mapping[str, Any]], node: int | None = None, gone: bool = False
) -> list[dict[str, Any]]:
    """Make rows of what the registry lists, ordered by node and key; those marked gone only if asked for."""
    rows = []
    for item in items:
        value = item["value"]
        if not isinstance(value, dict) or (node is not None and value.get("node") != node):
            continue
        if value.get("gone") and not gone:
            continue
        row = {
            "class": value["class"],
            "id": value["id"],
            "key": dict(value["key"]),
            "node": value["node"],
            "attributes": {**value["key"], **value["attributes"]},
            "age_s": None,
        }
        if value.get("gone"):
            row |= {"gone": True, "since": value.get("since")}
        rows.append(row)
    return ordered(rows)


def ordered(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows by node and key."""
    return sorted(rows, key=lambda row: (row["node"], _key_order(row["key"]), row["id"]))


def add_values(rows: Iterable[dict[str, Any]], node: int, answers: Iterable[Mapping[str, Any]]) -> None:
    """Put what a node answered about its own resources into their rows."""
    by_id = {answer["id"]: answer for answer in answers}
    for row in rows:
        answer = by_id.get(row["id"]) if row["node"] == node else None
        if answer is not None and not row.get("gone"):
            row["attributes"] |= answer["attributes"]
            row["age_s"] = answer["age_s"]
            if answer.get("reason"):
                row["reason"] = answer["reason"]


def key_text(key: Mapping[str, Any]) -> str:
    """Return a key as people type it: the key attribute's text; several separated by commas."""
    return ",".join(_text(value) for value in key.values())


def pick(rows: Iterable[dict[str, Any]], cls: str, key: str) -> dict[str, Any]:
    """Return the one row that `key` names: by its key's text, as NAME=VALUE,… or by its id.

    Raises ResourceNotFound or Ambiguous.
    """
    rows = list(rows)
    found = [row for row in rows if key in (row["id"], key_text(row["key"]), _named(row["key"]))]
    # One that is gone matters only where nothing of that key is there.
    found = [row for row in found if not row.get("gone")] or found
    if len(found) > 1:
        nodes = sorted({row["node"] for row in found})
        raise Ambiguous(
            f"{cls} '{key}' is on nodes {', '.join(map(str, nodes))}", f"add --node, for example --node {nodes[0]}"
        )
    if not found:
        there = sorted({key_text(row["key"]) for row in rows if not row.get("gone")})
        some = ", ".join(there[:5]) + (", …" if len(there) > 5 else "")
        raise ResourceNotFound(
            f"there is no {cls} '{key}'", f"there are: {some}" if there else f"there is no {cls} at all just now"
        )
    return found[0]


def _named(key: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={_text(value)}" for name, value in key.items())


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _key_order(key: Mapping[str, Any]) -> tuple[tuple[int, float, str], ...]:
    """Numbers by size, everything else by its text: a key may have either, and rows of old versions both."""
    return tuple(
        (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, _text(value)) for value in key.values()
    )

"""Does a boot log follow the order of SPEC 2.3?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from covey.components.dcm.bootlog import BEFORE


def out_of_order(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what in a timeline breaks the order of SPEC 2.3; empty for a sound boot.

    A step counts when it was first done; `remote` steps were over before this node looked, so they break nothing.
    """
    first: dict[int, float] = {}
    for record in records:
        if record["how"] == "done":
            first.setdefault(record["step"], record["ms"])
            first[record["step"]] = min(first[record["step"]], record["ms"])
    return [
        f"step {after} at {first[after]} ms came before step {before} at {first[before]} ms"
        for before, after in sorted(BEFORE)
        if before in first and after in first and first[after] < first[before]
    ]

"""`covey doctor`: what is wrong or doubtful with this node and its cluster, and what to do about it."""

from __future__ import annotations

from typing import Any

from ..errors import NoDaemon
from .connection import Session, answer, offline
from .options import settings
from .output import Block
from .verbs import alone

UNWELL = 3
"""The exit code when there is an error among the findings: that all is well is false."""


@alone("doctor", examples=["covey doctor", "covey --state ./n2 doctor -o json"])
def command() -> int:
    """Look for what is wrong: on this node, on every node of its cluster, and on the ways between them.

    Each node is asked how it is: identity, state, local files, room on its disk, crashes, plugins, clock and version,
    whether it listens where it is defined, and which of its neighbours it reaches at which address. Each finding has
    a code (`covey explain CODE`), a severity, the node, and a fix. It changes nothing, and works on a node that is
    offline or whose daemon does not run, too. The exit code is 3 when a finding is an error; warnings alone give 0.
    """

    def ask(session: Session) -> Any:
        return session.call("dcm", "doctor")

    try:
        return answer(ask, _findings, timeout=30, code=_code)
    except NoDaemon:
        from ..components.dcm.facts import at_rest_plain

        found = at_rest_plain(settings().folder)
        return offline(found, _findings, code=_code(found))


def _code(data: list[dict[str, Any]]) -> int:
    return UNWELL if any(found["severity"] == "error" for found in data) else 0


def _findings(data: list[dict[str, Any]]) -> list[Block]:
    lines: list[Block] = []
    for found in data:
        where = f"node {found['node']}: " if found["node"] else ""
        lines.append(f"{found['severity']}[{found['code']}]: {where}{found['message']}")
        lines += [f"    = {found['hint']}"] if found["hint"] else []
    errors = sum(found["severity"] == "error" for found in data)
    counts = [_count(errors, "error"), _count(len(data) - errors, "warning")]
    lines.append(" and ".join(count for count in counts if count) or "all is well")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}" if number else ""

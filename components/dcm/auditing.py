"""Reading the audit log of a node over the bus: for `covey log audit` (SPEC 4).

Knows the log and the expression language, nothing else of the DCM. The file is read in a thread, a line at a time; an
answer is bounded, so that the newest lines of a long log are to be had however much there is of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from ...bus.messages import Role
from ...bus.service import verb
from ...config.predicate import FieldType, predicate
from ...errors import BadArguments, CoveyError
from .audit import AuditLog
from .home import Home

FIELDS: Mapping[str, FieldType] = {
    "at": FieldType("time"),
    "who": FieldType("text"),
    "uid": FieldType("number"),
    "what": FieldType("text"),
    "outcome": FieldType("text"),
}
"""What a selection may look at."""

MOST_LINES = 1000
"""Lines of one answer. A line is some hundred bytes, so an answer stays well below what one message may hold."""


class AuditVerbs:
    """The audit log of one node, for those who may run operations: it says what every user did."""

    _home: Home

    @verb(Role.OPERATOR)
    async def log_audit(self, *, select: str = "", last: int = 100) -> dict[str, Any]:
        """Return `entries`: the last ones for which `select` holds, oldest first; `breaks`: where the chain is broken.

        `last` is how many at most, 1 to 1,000. An entry is `{at, who, uid, what, outcome, with?}`; a break is
        `{file, line, reason}`.
        """
        if not 1 <= last <= MOST_LINES:
            raise BadArguments(f"last={last} is not 1 to {MOST_LINES}", "select what is wanted instead")
        return await asyncio.to_thread(_read, self._home.audit_log, select, last)


def _read(log: AuditLog, select: str, last: int) -> dict[str, Any]:
    wanted = predicate(select, FIELDS) if select else None
    found: deque[dict[str, Any]] = deque(maxlen=last)
    try:
        for entry in log.entries():
            if wanted is None or wanted(entry):
                found.append({name: value for name, value in entry.items() if name != "previous"})
        breaks = [{"file": one.path.name, "line": one.line, "reason": one.reason} for one in log.verify()]
    except OSError as why:
        raise CoveyError(f"the audit log cannot be read: {why.strerror}", "look at the disk of the node") from None
    return {"entries": list(found), "breaks": breaks}

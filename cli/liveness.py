"""`covey liveness`: who is alive, as all members agree."""

from __future__ import annotations

from typing import Any

from .cluster import view_text
from .connection import answer
from .output import Block, Fields, Table
from .verbs import Noun

command = Noun(
    "liveness",
    help="The membership list: a sequence of numbered views, the same at every member. Nodes probe one another; what "
    "a majority of the registry servers then agrees on is true.",
)


@command.verb("status", examples=["covey liveness status", "covey liveness status -o json"])
def status() -> int:
    """Show the present view: its id and its members.

    The view id is (epoch, number). A member is `pending online` until its configuration is done. `frozen` says that
    this node is cut off from the quorum, so that its list stands still.
    """
    return answer(lambda session: session.call("liveness", "status"), _text)


def _text(data: dict[str, Any]) -> list[Block]:
    view = data.get("view") or {}
    pairs = [("view", view_text(view)), ("quorate", data.get("quorate")), ("frozen", data.get("frozen"))]
    pairs += [(name, data[name]) for name in ("since",) if data.get(name)]
    members = [found for found in view.get("members", []) if isinstance(found, dict)]
    rows = [(m.get("number"), m.get("name"), m.get("state"), m.get("boot_id")) for m in members]
    table = Table(("number", "name", "state", "boot id"), rows, "no members")
    return [Fields([pair for pair in pairs if pair[1] is not None]), "", table]

"""The operations that are specified and not built yet: each says so, and does nothing."""

from __future__ import annotations

from typing import Any, NoReturn

from ...bus.messages import Role
from ...bus.service import verb
from ...errors import NotImplementedYet


def _refuse(what: str, point: str) -> NoReturn:
    raise NotImplementedYet(f"{what} is not built yet (SPEC {point})", "nothing was done")


class Unbuilt:
    """Verbs of the DCM that are to come. They take any arguments."""

    @verb(Role.ADMIN)
    def plugin_block(self, /, **_arguments: Any) -> None:
        """Keep a plugin from being used, with a note why."""
        _refuse("blocking a plugin", "12.5")

    @verb(Role.ADMIN)
    def plugin_unblock(self, /, **_arguments: Any) -> None:
        """Let a blocked plugin be used again."""
        _refuse("unblocking a plugin", "12.5")

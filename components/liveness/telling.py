"""Who lags is told the views it lacks, but not twice for what may still be on its way. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .messages import Step, ViewId, ViewsAnnounced
from .settings import Settings
from .views import Chain

MOST_ENTRIES = 4000
"""Members in one announcement, about 200 kB; a whole view is never divided."""


class Teller:
    """Which views were told to whom last, and when."""

    def __init__(self, chain: Chain, settings: Settings) -> None:
        self.chain = chain
        self.settings = settings
        self._told: dict[int, tuple[ViewId, float]] = {}

    def lacking(self, number: int, held: ViewId, now: float) -> ViewsAnnounced | None:
        """Return what to tell a node that holds the view `held`; None: nothing now."""
        if held >= self.chain.id:
            return None
        before, at = self._told.get(number, (None, 0.0))
        if before == held and now < at + self.settings.repeat / 2:
            return None
        self._told[number] = (held, now)
        steps, whole = self.chain.steps(held)
        return ViewsAnnounced(_some(steps), whole)

    def keep(self, numbers: Sequence[int]) -> None:
        """Forget all others."""
        self._told = {number: told for number, told in self._told.items() if number in numbers}


def _some(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return as many of the first steps as go into one message."""
    size = 0
    for count, step in enumerate(steps):
        size += len(step.put) + len(step.gone) + 1
        if count and size > MOST_ENTRIES:
            return tuple(steps[:count])
    return tuple(steps)

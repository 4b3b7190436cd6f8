"""How long a node that comes and goes has to wait before it is let in again. Pure.

Only a node that was removed while it ran has to wait: it shows itself under the boot id that was removed. One that
crashed and was started again has not. The wait begins at five seconds and doubles up to five minutes; ten minutes
without such a removal and it is forgiven. Only the leader knows it, so a new leader begins with a clean slate.
"""

from __future__ import annotations

from .settings import Settings

REMEMBERED = 10_000
"""Boot ids and nodes kept in mind; the oldest give way, which lets them in sooner."""


class Backoff:
    """Who was removed by accusation, how often while it ran, and until when it waits."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._accused: dict[str, None] = {}
        self._nodes: dict[int, tuple[int, float, float]] = {}  # times, the last one, until when

    def removed(self, boot_id: str) -> None:
        """That boot id was removed because it was accused."""
        self._accused[boot_id] = None
        if len(self._accused) > REMEMBERED:
            del self._accused[next(iter(self._accused))]

    def ran(self, number: int, boot_id: str, now: float) -> None:
        """A boot id that is no member any more showed itself."""
        if boot_id not in self._accused:
            return
        del self._accused[boot_id]
        times, last, _ = self._nodes.pop(number, (0, now, now))
        if now > last + self.settings.forgiven:
            times = 0
        wait = min(self.settings.longest_wait, self.settings.first_wait * 2.0 ** min(times, 30))
        self._nodes[number] = (times + 1, now, now + wait)
        if len(self._nodes) > REMEMBERED:
            del self._nodes[next(iter(self._nodes))]

    def until(self, number: int) -> float:
        """Until when a node has to wait."""
        return self._nodes[number][2] if number in self._nodes else 0.0

"""How long a node that comes and goes has to wait before it is let in again. Pure.

Only a node that was removed while it ran has to wait: it shows itself under the boot id that was removed. One that
crashed and was started again has not. The wait begins at five seconds and doubles up to five minutes; ten minutes
without such a removal and it is forgiven.

The leader knows it, and the log: a view's entry says who was removed in it because they were accused, and each wait
is an entry of its own (`Waited`). So the next leader goes on with it, and nobody returns sooner for an election.
"""

from __future__ import annotations

from .messages import Waited
from .settings import Settings

REMEMBERED = 10_000
"""Nodes kept in mind; the oldest give way, which lets them in sooner."""


class Backoff:
    """Who was removed by accusation, how often while it ran, and until when it waits."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._accused: dict[int, str] = {}  # of each node the last boot id that was, unless it has shown itself
        self._nodes: dict[int, tuple[int, float, float]] = {}  # times, the last one, until when

    def removed(self, number: int, boot_id: str) -> None:
        """That boot id was removed because it was accused."""
        self._accused[number] = boot_id
        if len(self._accused) > REMEMBERED:
            del self._accused[next(iter(self._accused))]

    def ran(self, number: int, boot_id: str, now: float, date: float = 0.0) -> Waited | None:
        """A boot id that is no member any more showed itself; return the wait that begins, if one does.

        `date` is the time of day, 0 if it is not known.
        """
        if self._accused.get(number) != boot_id:
            return None
        del self._accused[number]
        times, last, _ = self._nodes.pop(number, (0, now, now))
        if now > last + self.settings.forgiven:
            times = 0
        self._wait(number, times + 1, now)
        return Waited(number, boot_id, times + 1, round(date, 3))

    def restore(self, waited: Waited, now: float, date: float) -> None:
        """A former leader made this node wait. Where a time of day is missing or goes back, it waits anew."""
        if self._accused.get(waited.number) == waited.boot_id:
            del self._accused[waited.number]
        self._wait(waited.number, waited.times, now - max(0.0, date - waited.at if date and waited.at else 0.0))

    def _wait(self, number: int, times: int, since: float) -> None:
        wait = min(self.settings.longest_wait, self.settings.first_wait * 2.0 ** min(times - 1, 30))
        self._nodes[number] = (times, since, since + wait)
        if len(self._nodes) > REMEMBERED:
            del self._nodes[next(iter(self._nodes))]

    def until(self, number: int) -> float:
        """Until when a node has to wait."""
        return self._nodes[number][2] if number in self._nodes else 0.0

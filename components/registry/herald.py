"""Who leads, said to the node and to the nodes that asked lately, whenever it changed. Pure."""

from __future__ import annotations

import msgspec

from ...bus.machine import Address, Effect, Publish, Send
from . import messages
from .messages import SERVICE, Leading


class Herald:
    """What was said last, and who asked. `most` nodes are remembered, each for `seconds` after its last question."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._said: Leading | None = None
        self._askers: dict[int, float] = {}

    def asked(self, node: int, now: float) -> None:
        """A node asked who leads."""
        if node in self._askers or len(self._askers) < self._most:
            self._askers[node] = now

    def forget(self, node: int) -> None:
        """A node is gone."""
        self._askers.pop(node, None)

    def say(self, leading: Leading, now: float) -> list[Effect]:
        """Return what must be said of who leads: nothing, while it is what was said before."""
        fact = msgspec.structs.replace(leading, index=0)
        if self._said == fact:
            return []
        self._said = fact
        phase = {"phase": leading.phase, "writable": leading.writable, "epoch": leading.epoch}
        self._askers = {node: at for node, at in sorted(self._askers.items()) if at >= now - self._seconds}
        return [
            Publish(messages.LEADING_TOPIC, leading),
            Publish(messages.PHASE_TOPIC, {**phase, "primary": leading.primary}),
            *(Send(Address(SERVICE, node), leading) for node in self._askers),
        ]

    def check(self) -> None:
        """Raise AssertionError when the table is over its bound (32)."""
        assert len(self._askers) <= self._most, "32: too many askers"

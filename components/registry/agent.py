"""The agent's protocol machine, on a node without a registry server: knows who leads, asks until it does.

Knows no socket, disk or clock, and no key: calls are forwarded by `forward.py` to the node named here. It asks every
listed server while it knows of no primary, then only the primary, at the same pace; a server also tells those who
asked lately of a change unasked. Loss of the primary is `find_misses` questions without an answer, or a closed link.

States: searching (no primary is known) and following. Invariants (`check_invariants`):
  1. following means one primary, searching means none
  2. the epoch followed never goes back
  3. what was published last is what is known now
"""

from __future__ import annotations

from collections import deque
from typing import Any

from ...bus.machine import Address, Effect, ImpossibleTransition, Publish, Received, Send
from . import messages
from .messages import SERVICE, FindPrimary, Leading
from .settings import Settings

NOBODY = Leading(0, 0, "offline", False)


class AgentMachine:
    """Find and follow the primary registry server."""

    def __init__(self, node: int, servers: tuple[int, ...], settings: Settings | None = None) -> None:
        self.node = node
        self.servers = servers
        self.settings = settings or Settings()
        self.known = NOBODY
        self.searching_since: float | None = None
        self._hint = 0  # a node that another server named as primary
        self._published: Leading | None = None
        self._misses = 0
        self._ask_at = 0.0
        self._effects: list[Effect] = []
        self._story: deque[str] = deque(maxlen=20)
        self._epoch = 0

    @property
    def following(self) -> bool:
        """A primary is known."""
        return self.known.primary != 0

    @property
    def deadline(self) -> float | None:
        """When to ask next."""
        return self._ask_at

    def step(self, now: float, input: Any = None) -> list[Effect]:
        """Take one input; return what must be done."""
        self._story.append(f"{now:.6f} {self.known.primary or 'searching'}: {type(input).__name__}")
        if self.searching_since is None and not self.following:
            self.searching_since = now
        match input:
            case None:
                pass
            case Received(source=source, message=Leading() as message):
                self._told(now, source.node, message)
            case Received():
                pass  # events of the other machines of this node
            case messages.PeerDown(node=node):
                if node == self.known.primary:
                    self._lost(now)
            case messages.ServersChanged(servers=servers):
                self._listed(now, servers)
            case _:
                story = "\n  ".join(self._story)
                raise ImpossibleTransition(f"input {input!r}; the story:\n  {story}")
        if now >= self._ask_at:
            self._ask(now)
        self._publish()
        effects, self._effects = self._effects, []
        return effects

    def _ask(self, now: float) -> None:
        self._ask_at = now + self.settings.find_interval
        if self.following and self._misses >= self.settings.find_misses:
            self._lost(now)
        self._misses += 1
        whom = {self.known.primary} if self.following else {*self.servers, self._hint}
        for node in sorted(whom - {0, self.node}):
            self._effects.append(Send(Address(SERVICE, node), FindPrimary()))

    def _told(self, now: float, source: int, leading: Leading) -> None:
        """A server said who leads. Only the primary's own word is followed; another's is a hint whom to ask."""
        if source in (0, self.node):
            return
        if leading.primary == source:
            if leading.epoch < self._epoch:
                return
            self._epoch, self.known = leading.epoch, leading
            self._misses, self._hint, self.searching_since = 0, 0, None
        elif source == self.known.primary:
            if leading.epoch >= self._epoch or not leading.primary:
                self._lost(now)  # it leads no more, by its own word
                self._hint = leading.primary
        elif leading.primary not in (0, self._hint) and not self.following and leading.epoch >= self._epoch:
            self._hint, self._ask_at = leading.primary, now

    def _lost(self, now: float) -> None:
        self.known = Leading(self._epoch, 0, "offline", False)
        self.searching_since, self._misses, self._ask_at = now, 0, now

    def _listed(self, now: float, servers: tuple[int, ...]) -> None:
        self.servers = servers
        if self.following and self.known.primary not in servers:
            self._lost(now)
        elif not self.following:
            self._ask_at = now

    def _publish(self) -> None:
        if self._published == self.known:
            return
        self._published = known = self.known
        self._effects.append(Publish(messages.LEADING_TOPIC, known))
        phase = {"phase": known.phase, "writable": known.writable, "epoch": known.epoch, "primary": known.primary}
        self._effects.append(Publish(messages.PHASE_TOPIC, phase))

    def check_invariants(self) -> None:
        """Raise AssertionError naming the invariant that does not hold."""
        assert self.following == (self.searching_since is None), "1: following and searching at once, or neither"
        assert self.known.epoch <= self._epoch, "2: the epoch followed went back"
        assert self._published == self.known, "3: what is known was not published"
        assert self.node not in {self.known.primary} - {0}, "1: an agent's own node cannot lead"

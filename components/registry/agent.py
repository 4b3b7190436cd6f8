"""Who leads, as far as this node knows: the protocol machine that finds the primary and follows it, on every node.

Knows no socket, disk or clock, and no key: calls are taken by `forward.py` to the node named here. On a registry
server's node its own copy mostly knows who leads, and then nobody is asked. Else it asks every listed server while it
knows of no primary, then only the primary, and that seldom while it answers: a server tells those who asked lately of a
change unasked, and a call that waits for its answer is a reason to ask at once (`AskNow`). When the listed servers are
silent for a while, other nodes are asked as well, a few at a time: the list may be old, and every node knows whom it
follows. Loss of the primary is `find_misses` questions without an answer, a closed
link, or the own copy's word.

States: searching (no primary is known) and following. Invariants (`check_invariants`):
  1. following means one primary, searching means none; this node itself leads by its own copy's word only
  2. the epoch followed never goes back
  3. what was published last is what is known now
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from ...bus.machine import Address, Effect, ImpossibleTransition, Publish, Received, Send
from . import messages
from .messages import SERVICE, FindPrimary, Leading, Phase
from .settings import Settings

NOBODY = Leading(0, 0, "offline", False)
OTHERS_ASKED = 5
"""Other nodes than servers that are asked at a time."""


class CopySaid(msgspec.Struct, frozen=True):
    """This node's own copy says who leads."""

    leading: Leading


class CopyClosed(msgspec.Struct, frozen=True):
    """This node has no copy any more."""


class OthersKnown(msgspec.Struct, frozen=True):
    """The local configuration knows these nodes of the cluster, registry servers or not."""

    nodes: tuple[int, ...]


class AskNow(msgspec.Struct, frozen=True):
    """Whoever was taken for the primary sent a call away, or does not answer it: ask it at once whom it follows."""


class AgentMachine:
    """Find and follow the primary registry server."""

    def __init__(self, node: int, servers: tuple[int, ...], settings: Settings | None = None) -> None:
        self.node = node
        self.servers = servers
        self.settings = settings or Settings()
        self.known = NOBODY
        self.index = 0  # the newest committed index that a primary told of; no change of it is published
        self.searching_since: float | None = None
        self._by_copy = False  # followed by the word of this node's own copy, so nobody needs to be asked
        self._others: tuple[int, ...] = ()
        self._rounds = 0  # of questions since the primary was lost
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
    def answered(self) -> bool:
        """No question is open: what was asked last was answered."""
        return not self._misses

    @property
    def deadline(self) -> float | None:
        """When to ask next; never, while the own copy knows."""
        return None if self._by_copy else self._ask_at

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
            case CopySaid() | CopyClosed():
                self._copy(now, input)
            case messages.PeerDown(node=node):
                if node == self.known.primary and not self._by_copy:
                    self._lost(now)
            case messages.ServersChanged() | OthersKnown():
                self._listed(now, input)
            case AskNow():
                self._ask_at = min(self._ask_at, now)
            case _:
                story = "\n  ".join(self._story)
                raise ImpossibleTransition(f"input {input!r}; the story:\n  {story}")
        if now >= self._ask_at and not self._by_copy:
            self._ask(now)
        self._publish()
        effects, self._effects = self._effects, []
        return effects

    def _ask(self, now: float) -> None:
        self._ask_at = now + self.settings.find_interval
        if self.following and self._misses >= self.settings.find_misses:
            self._lost(now)
        self._misses += 1
        self._rounds += 1
        whom = {self.known.primary} if self.following else {*self.servers, self._hint, *self._some_others()}
        for node in sorted(whom - {0, self.node}):
            self._effects.append(Send(Address(SERVICE, node), FindPrimary()))

    def _some_others(self) -> tuple[int, ...]:
        """Whom to ask besides the listed servers: nobody at first, then a few nodes, each time the next ones."""
        turn = self._rounds - self.settings.find_misses - 1
        if turn < 0 or not self._others:
            return ()
        start = turn * OTHERS_ASKED % len(self._others)
        return (*self._others, *self._others)[start : start + min(OTHERS_ASKED, len(self._others))]

    def _told(self, now: float, source: int, leading: Leading) -> None:
        """A node said who leads. Only the primary's own word is followed; another's is a hint whom to ask."""
        if source in (0, self.node):
            return
        if leading.primary == source:
            if leading.epoch < self._epoch:
                return
            if not self._by_copy or leading.epoch > self._epoch:
                self._follow(leading, by_copy=False)
                self._ask_at = now + self.settings.look_interval
        elif source == self.known.primary:
            if not self._by_copy and (leading.epoch >= self._epoch or not leading.primary):
                self._lost(now)  # it leads no more, by its own word
                self._hint = leading.primary
        elif leading.primary not in (0, self._hint) and not self.following and leading.epoch >= self._epoch:
            self._hint, self._ask_at = leading.primary, now

    def _follow(self, leading: Leading, by_copy: bool) -> None:
        self.index = max(self.index, leading.index)
        self.known = msgspec.structs.replace(leading, index=0)
        self._epoch, self._by_copy = leading.epoch, by_copy
        self._misses, self._hint, self._rounds, self.searching_since = 0, 0, 0, None

    def _copy(self, now: float, input: CopySaid | CopyClosed) -> None:
        """The own copy hears the primary itself, so its word counts, unless a newer reign is known."""
        if isinstance(input, CopyClosed):
            if self.known.primary == self.node or not self.following:
                self._lost(now)
            elif self._by_copy:
                self._by_copy, self._ask_at = False, now
            return
        leading = input.leading
        if leading.primary and leading.epoch >= self._epoch:
            self._follow(leading, by_copy=True)
        elif self._by_copy:
            self._lost(now, leading.phase)
        elif not self.following:
            self.known = msgspec.structs.replace(self.known, phase=leading.phase)

    def _lost(self, now: float, phase: Phase = "offline") -> None:
        self.known = Leading(self._epoch, 0, phase, False)
        self._by_copy = False
        self.searching_since, self._misses, self._rounds, self._ask_at = now, 0, 0, now

    def _listed(self, now: float, input: messages.ServersChanged | OthersKnown) -> None:
        if isinstance(input, OthersKnown):
            self._others = input.nodes
            return
        self.servers = input.servers
        if self.following and not self._by_copy and self.known.primary not in self.servers:
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
        assert self._by_copy or self.node != self.known.primary, "1: this node leads, and not by its own copy's word"
        assert self.following or not self._by_copy, "1: the own copy knows, and nobody is followed"

"""Who dials: when to connect to a peer, to which of its addresses, and when to give up. A pure machine.

Knows no socket, clock, thread or random source: what happened comes in by the methods, at time `now`; each returns the
effects to perform, in order. One dialler has one peer and at most one session with it (`session.py`).

A first connection tries the addresses in order, once each; what waits is told when all have failed. A connection that
breaks is dialled again, with jitter and doubling pauses, until the session was not heard for `SILENT` seconds; when
every address refuses, the other broker is gone, which ends it after one round. Whoever gave up begins a new session,
never the old one: so what was reported lost cannot arrive later. A peer that does not know the session, since it was
started anew, says so.

The addresses are in order of preference, and the order may change at any time (`move`). Who hears nothing for `FALTER`
seconds takes the session to the next one; who is not on the best one tries the better ones every `HOLD_DOWN` seconds by
a second connection, and goes over to it when it stands: so nothing ever waits for an address that may be dead.

Odd: messages that ask for a peer just found dead wait for the pause after that failure, at most 0.2 s; only redials
that nobody's message asks for (`keep`) back off to 5 s.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from .ends import LinkKey
from .messages import Kind
from .session import (
    ACCEPT,
    CUT,
    END,
    IDLE,
    OPEN,
    REASONS,
    RESUME,
    SAID,
    SILENT,
    SILENT_END,
    Closed,
    Counters,
    Deliver,
    Down,
    Effect,
    Session,
    Up,
)

DIAL_LIMIT = 2.0
"""Seconds a connection may take until the other broker has answered on it. Long enough for a busy machine."""

PAUSE = 0.1
"""Seconds of the first pause before dialling again; up to twice as much by chance, so that not all dial at once."""

LONGEST_PAUSE = 5.0
"""Seconds of the longest pause, likewise doubled by chance before it is cut."""

FALTER = 2.5
"""Seconds of silence after which the next address is tried with the session; there are `SILENT` in all. A heartbeat
comes every second."""

ANSWER = 1.0
"""Seconds of `FALTER` that are left for an answer when nobody vouches for the peer any more."""

HOLD_DOWN = 10.0
"""Seconds until a better address than the one in use is tried: one that comes and goes moves a link no more often."""

IDLE_LIMIT = 60.0
"""Seconds without a message after which a link is closed: a pair that does not talk costs nothing."""


class Chance(Protocol):
    """A source of random numbers, such as `random.Random`."""

    def random(self) -> float:
        """Return a number from 0 to 1."""

    def getrandbits(self, k: int, /) -> int:
        """Return a number of so many bits."""


class Connect(msgspec.Struct, frozen=True):
    """Open a connection to this address; answer with `connected` or `failed`."""

    address: str


class HangUp(msgspec.Struct, frozen=True):
    """Close the connection; what was transmitted may still leave, briefly. Nothing of it is reported any more."""


class Try(msgspec.Struct, frozen=True):
    """Open a second connection, to this address; answer with `tried`."""

    address: str


class Adopt(msgspec.Struct, frozen=True):
    """The second connection takes the place of the first, which is closed."""


class Drop(msgspec.Struct, frozen=True):
    """Close the second connection. Nothing of it is reported any more."""


Act = Effect | Connect | HangUp | Try | Adopt | Drop


class State(enum.Enum):
    """Where a dialler is."""

    AT_REST = "at rest"  # no connection, and none is wanted
    PAUSING = "pausing"  # dials again later
    DIALLING = "dialling"  # the connection is being made
    OPENING = "opening"  # it stands; the peer has not answered yet
    UP = "up"


_NEXT: dict[State, frozenset[State]] = {
    State.AT_REST: frozenset({State.DIALLING, State.PAUSING}),
    State.PAUSING: frozenset({State.DIALLING, State.PAUSING, State.AT_REST}),
    State.DIALLING: frozenset({State.OPENING, State.DIALLING, State.PAUSING, State.AT_REST}),
    State.OPENING: frozenset({State.UP, State.DIALLING, State.PAUSING, State.AT_REST}),
    State.UP: frozenset({State.OPENING, State.DIALLING, State.PAUSING, State.AT_REST}),
}


class Dialler:
    """Keep one conversation with the broker at `addresses`. `hello` gives the first message of each session.

    Invariants: 1. a connection is wanted or there in the states DIALLING, OPENING and UP only; 2. in AT_REST nothing
    waits; 3. the session is attached in UP only; 4. a second connection is there in UP only.
    """

    def __init__(
        self, key: LinkKey, addresses: tuple[str, ...], chance: Chance, hello: Callable[[], list[Any]]
    ) -> None:
        self.key = key
        self.addresses = addresses
        self.counters = Counters()
        self.state = State.AT_REST
        self.session: Session | None = None
        self.used = 0.0
        self._chance = chance
        self._hello = hello
        self._kept = False
        self._accepted = False  # this session was accepted once, so the peer may have heard from it
        self._former = 0
        self._attempt = 0
        self._first = 0  # the address that worked last
        self._tried = 0
        self._until = 0.0  # when the state's time is over
        self._not_before = 0.0
        self._pauses = 0
        self._refused = 0  # addresses of this round that did
        self._reasons: list[str] = []
        self._excused = 0.0  # when this side had stood still, or had been calm
        self._trial = -1  # the better address that a second connection goes to
        self._trial_until = 0.0
        self._better_at = 0.0

    @property
    def address(self) -> str:
        """The address in use."""
        return self.addresses[(self._first + self._tried) % len(self.addresses)]

    @property
    def up(self) -> bool:
        """The peer answers."""
        return self.state is State.UP

    @property
    def hushed(self) -> bool:
        """The session is calm, or will be when nothing waits."""
        return self.session is not None and self.session.hushed

    @property
    def kept(self) -> bool:
        """The connection is held though nobody uses it."""
        return self._kept

    @property
    def deadline(self) -> float | None:
        """When `due` must be called though nothing happened; None: not at all."""
        if self.state is State.AT_REST:
            return None
        if self.state is State.UP:
            assert self.session is not None
            at = self.session.deadline
            if len(self.addresses) > 1:
                at = min(at, self._falters_at(self.session))
            if self._trial >= 0:
                return min(at, self._trial_until)
            return min(at, self._better_at) if self._first else at
        if self.session and self._accepted:
            return min(self._until, self.session.deadline)
        return self._until

    # --- what the broker wants ----------------------------------------------------------------------------------

    def send(self, now: float, kind: Kind, frames: list[Any], service: str = "") -> list[Act]:
        """Send a message, dialling first when needed; raises Overloaded."""
        self.used = now
        session = self.session
        if session is not None:
            sent: list[Any] = session.send(now, kind, frames, service)
            if self.state is State.PAUSING and not self._accepted:
                self._until = min(self._until, self._not_before)
            return sent
        session = self._begin(now)
        session.send(now, kind, frames, service)
        return self._go(now)

    def keep(self, now: float, wanted: bool) -> list[Act]:
        """Hold the connection, and dial again whenever it is lost, though no message waits; or do so no longer."""
        self._kept = wanted
        self.used = now
        if wanted and self.state is State.AT_REST:
            return self._go(now)
        if not wanted and self.state is State.PAUSING and self.session is None:
            self._to(State.AT_REST)
        return []

    def hush(self, now: float, wanted: bool) -> list[Act]:
        """Somebody vouches that the peer lives, or nobody does any more (`Session.calm`)."""
        if self.session is None or self.state is not State.UP:
            return []
        if not wanted:
            self._excused = max(self._excused, now - FALTER + ANSWER)
        return [*self.session.hush(now, wanted)]

    def move(self, now: float, addresses: tuple[str, ...]) -> list[Act]:
        """Take other addresses, or another order. A session that stands goes with them, and loses nothing."""
        if addresses == self.addresses:
            return []
        effects: list[Act] = self._drop()
        if not addresses:
            effects += self.stop(now, reason="no network may carry this")
        current, self.addresses = self.address, addresses
        if current in addresses:
            self._first, self._tried = addresses.index(current), 0
            return effects + (self._try(now, 0) if self.state is State.UP and self._first else [])
        self._first = self._tried = 0
        if self.state is State.UP and self.session:
            self.session.detach(now)
        elif self.state not in (State.DIALLING, State.OPENING):
            return effects
        return [*effects, HangUp(), *self._dial(now)]

    def rest_if_idle(self, now: float, busy: bool) -> list[Act]:
        """Close the connection in good order when nobody used it for long; `busy`: an answer is on its way."""
        if self.state is not State.UP or busy or self._kept or now - self.used < IDLE_LIMIT:
            return []
        assert self.session is not None
        if self.session.waiting:
            return []
        goodbye = self.session.ending(now, IDLE)
        trial = self._drop()
        self._forget()
        return [goodbye, *trial, HangUp(), Closed(self.key)]

    def stop(self, now: float, code: int = CUT, reason: str = "") -> list[Act]:
        """End the session now; with a `reason`, this is told as Down."""
        if self.state is State.AT_REST:
            return []
        effects: list[Act] = self._drop()
        if self.state is State.UP and self.session:
            effects.append(self.session.ending(now, code))
        if self.state is not State.PAUSING:
            effects.append(HangUp())
        self._kept = False
        if reason:
            return [*effects, self._down(now, reason)]
        self._forget()
        return effects

    # --- what happened ------------------------------------------------------------------------------------------

    def connected(self, now: float) -> list[Act]:
        """The connection stands: open the session on it."""
        if self.state is not State.DIALLING:
            return []
        session = self.session or self._begin(now)
        self._to(State.OPENING)
        self._attempt += 1
        if self._accepted:
            return [session.opening(now, RESUME, self._attempt)]
        return [session.opening(now, OPEN, self._attempt, self._former)]

    def failed(self, now: float, reason: str, refused: bool = False) -> list[Act]:
        """The connection broke or could not be made. `refused`: nobody listens there, though the host is alive."""
        if self.state in (State.AT_REST, State.PAUSING):
            return []
        self._reasons.append(f"{self.address}: {reason}")
        if self.state is State.UP:
            assert self.session is not None
            self.session.detach(now)
            return [*self._drop(), HangUp(), *self._pause(now)]
        self._refused += refused
        self._tried += 1
        if self._tried < len(self.addresses):
            return [HangUp(), *self._dial(now)]
        if self._accepted and self._refused < len(self.addresses):
            return [HangUp(), *self._pause(now)]
        return [HangUp(), self._down(now, "; ".join(self._reasons[-len(self.addresses) :]))]

    def tried(self, now: float, stands: bool) -> list[Act]:
        """The second connection stands, or could not be made."""
        if self._trial < 0 or self.session is None:
            return []
        if not stands:
            after = self._trial + 1
            return [*self._drop(), *self._try(now, after)]
        self._first, self._trial = self._trial, -1
        self.session.detach(now)
        self._to(State.OPENING)
        self._until = now + DIAL_LIMIT
        self._attempt += 1
        return [Adopt(), self.session.opening(now, RESUME, self._attempt)]

    def heard(
        self, now: float, type: int, number: int, sequence: int, ack: int, extra: int, frames: list[Any]
    ) -> list[Act]:
        """A session frame came over the connection; `frames`: header and body, of data."""
        session = self.session
        if session is None or number != session.number:
            self.counters.malformed += 1
            return []
        if self.state is State.UP and type in SAID:
            effects: list[Any] = session.heard(now, type, sequence, ack, extra, frames)
            if effects and isinstance(effects[0], Deliver):
                self.used = now
            return effects
        if type == END:
            return [*self._drop(), HangUp(), self._down(now, REASONS.get(extra, "it closed the connection"))]
        if type == ACCEPT and self.state is State.OPENING and sequence == self._attempt:
            return self._accept(now, session, ack)
        self.counters.malformed += 1
        return []

    def due(self, now: float) -> list[Act]:
        """The deadline came."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return []
        session = self.session
        if session and self._accepted:
            if now - deadline > SILENT / 5:
                session.excuse(now)
                self._excused = now
            if session.silent(now):
                return self._silence(now, session)
        if self.state is State.UP:
            assert session is not None
            if len(self.addresses) > 1 and now >= self._falters_at(session):
                return self._falter(now, session)
            return [*session.due(now), *self._look_for_better(now)]
        if now < self._until:
            return []
        if self.state is State.PAUSING:
            return self._dial(now)
        return self.failed(now, f"no answer in {DIAL_LIMIT:g} s")

    def check_invariants(self) -> None:
        """Raise AssertionError when a numbered invariant of the class does not hold."""
        assert self.session is not None or self.state in (State.AT_REST, State.PAUSING, State.DIALLING), "1"
        assert self.session is None or self.state is not State.AT_REST, "2"
        if self.session:
            assert self.session.attached == (self.state is State.UP), "3"
            self.session.check_invariants()
        assert self._trial < 0 or self.state is State.UP, "4"

    # --- inside -------------------------------------------------------------------------------------------------

    def _to(self, state: State) -> None:
        assert state in _NEXT[self.state], f"{self.key}: from {self.state.value} to {state.value}; {self._reasons}"
        self.state = state

    def _begin(self, now: float) -> Session:
        self.session = Session(self._chance.getrandbits(64) | 1, self.key, now, self.counters)
        self._accepted = False
        self._attempt = 0
        self.session.send(now, Kind.CONTROL, self._hello())
        return self.session

    def _go(self, now: float) -> list[Act]:
        if self.state is State.PAUSING:
            self._until = min(self._until, self._not_before)
            return []
        if self.state is not State.AT_REST:
            return []
        self._tried = 0
        if now >= self._not_before:
            return self._dial(now)
        self._to(State.PAUSING)
        self._until = self._not_before
        return []

    def _dial(self, now: float) -> list[Act]:
        if self.state is State.PAUSING:
            self._tried = 0
            self._refused = 0
        self._to(State.DIALLING)
        self._until = now + DIAL_LIMIT
        return [Connect(self.address)]

    def _pause(self, now: float) -> list[Act]:
        self._to(State.PAUSING)
        length = min(LONGEST_PAUSE, PAUSE * 2.0 ** min(self._pauses, 10) * (1.0 + self._chance.random()))
        self._pauses += 1
        self._until = now + length
        self._not_before = now + PAUSE * (1.0 + self._chance.random())
        return []

    def _accept(self, now: float, session: Session, ack: int) -> list[Act]:
        if not session.attach(now, ack):
            return [session.ending(now, CUT), HangUp(), self._down(now, "it answered for another conversation")]
        fresh = not self._accepted
        self._accepted = True
        self._former = session.number
        self._to(State.UP)
        self._first = (self._first + self._tried) % len(self.addresses)
        self._tried = self._pauses = 0
        self._refused = 0
        self._better_at = now + HOLD_DOWN
        self._reasons.clear()
        self.used = max(self.used, now if fresh else 0.0)
        if not fresh:
            self.counters.resumed += 1
        return [*session.rest(now), *([Up(self.key)] if fresh else [])]

    # --- better and worse addresses -----------------------------------------------------------------------------

    def _falters_at(self, session: Session) -> float:
        return max(session.silent_since, self._excused) + FALTER

    def _falter(self, now: float, session: Session) -> list[Act]:
        """Nothing is heard: take the session to the next address, and come back to this one last."""
        self._reasons.append(f"{self.address}: nothing was heard for {FALTER:g} s")
        effects = self._drop()
        session.detach(now)
        self._first = (self._first + 1) % len(self.addresses)
        self._refused = 0
        return [*effects, HangUp(), *self._dial(now)]

    def _look_for_better(self, now: float) -> list[Act]:
        if self._trial >= 0:
            return self.tried(now, False) if now >= self._trial_until else []
        return self._try(now, 0) if self._first and now >= self._better_at else []

    def _try(self, now: float, which: int) -> list[Act]:
        """Try an address by a second connection, if it is better than the one in use; else pause."""
        if which >= self._first:
            self._better_at = now + HOLD_DOWN
            return []
        self._trial = which
        self._trial_until = now + DIAL_LIMIT
        return [Try(self.addresses[which])]

    def _drop(self) -> list[Act]:
        if self._trial < 0:
            return []
        self._trial = -1
        return [Drop()]

    def _silence(self, now: float, session: Session) -> list[Act]:
        if self.state is State.UP:
            reason = f"{self.address}: nothing was heard for {max(now - session.heard_at, SILENT):.0f} s"
            return [session.ending(now, SILENT_END), *self._drop(), HangUp(), self._down(now, reason)]
        reason = f"{self._reasons[0] if self._reasons else 'broken'}, and no connection again for {SILENT:g} s"
        hang_up = [HangUp()] if self.state is not State.PAUSING else []
        return [*hang_up, self._down(now, reason)]

    def _down(self, now: float, reason: str) -> Down:
        """End the session, dial again if the connection is to be kept."""
        session, reached, kept = self.session, self._accepted, self._kept
        lost = session.waiting if session else 0
        self.counters.downs += 1
        self.counters.lost += lost
        self.counters.last_reason = reason
        self._forget()
        self._pause_after(now, kept)
        return Down(self.key, reason, reached, lost)

    def _forget(self) -> None:
        self.session = None
        self._accepted = False
        self._tried = 0
        self._refused = 0
        self._reasons = []
        self._to(State.AT_REST)

    def _pause_after(self, now: float, kept: bool) -> None:
        self._pause(now)
        if not kept:
            self._pauses = 0
            self._to(State.AT_REST)

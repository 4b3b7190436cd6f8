"""Mistakes planted into the sessions between brokers: each must be caught by a story or a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from covey.bus import acceptor, session
from covey.bus.acceptor import Acceptor
from covey.bus.dialler import Dialler
from covey.bus.session import Deliver, Session, Transmit
from links_scripts import SCRIPTS
from links_world import Broken, storm

Plant = Callable[[pytest.MonkeyPatch], None]


def take_what_was_there_before(patch: pytest.MonkeyPatch) -> None:
    data = Session._data

    def mutant(self: Session, now: float, sequence: int, frames: list[Any]) -> Any:
        again = sequence <= self._received
        return data(self, now, sequence, frames) + ([Deliver(self.key, frames)] if again else [])

    patch.setattr(Session, "_data", mutant)


def skip_what_is_missing(patch: pytest.MonkeyPatch) -> None:
    data = Session._data

    def mutant(self: Session, now: float, sequence: int, frames: list[Any]) -> Any:
        self._received = max(self._received, sequence - 1)
        return data(self, now, sequence, frames)

    patch.setattr(Session, "_data", mutant)


def send_nothing_again(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: Session, now: float) -> Any:
        self._sent = self._given
        return []

    patch.setattr(Session, "rest", mutant)


def confirm_one_too_many(patch: pytest.MonkeyPatch) -> None:
    confirm = Session._confirm
    patch.setattr(Session, "_confirm", lambda self, ack: confirm(self, min(ack + 1, self._sent)))


def confirm_what_was_only_seen(patch: pytest.MonkeyPatch) -> None:
    data = Session._data

    def mutant(self: Session, now: float, sequence: int, frames: list[Any]) -> Any:
        effects = data(self, now, sequence, frames)
        self._received = max(self._received, sequence)
        return effects

    patch.setattr(Session, "_data", mutant)


def resume_what_nobody_knows(patch: pytest.MonkeyPatch) -> None:
    opened = Acceptor._opened

    def mutant(self: Acceptor, now: float, connection: bytes, type: int, number: int, *rest: Any) -> Any:
        return opened(self, now, connection, type if number in self.sessions else session.OPEN, number, *rest)

    patch.setattr(Acceptor, "_opened", mutant)


def believe_late_openings(patch: pytest.MonkeyPatch) -> None:
    opened = Acceptor._opened

    def mutant(self: Acceptor, now: float, connection: bytes, type: int, number: int, *rest: Any) -> Any:
        if number in self.sessions:
            self.sessions[number].attempt = -1
        return opened(self, now, connection, type, number, *rest)

    patch.setattr(Acceptor, "_opened", mutant)


def send_no_heartbeats(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(session, "HEARTBEAT", 1e9)


def stay_calm_while_something_waits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "calm", property(lambda self: self.hushed or self._lulled))


def never_call_anybody_silent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "silent", lambda self, now: False)


def keep_heartbeats_empty(patch: pytest.MonkeyPatch) -> None:
    out = Session._out

    def mutant(self: Session, now: float, type: int, sequence: int, *rest: Any) -> Any:
        return out(self, now, type, 0 if type in (session.PING, session.PONG, session.ACK) else sequence, *rest)

    patch.setattr(Session, "_out", mutant)


def count_no_losses(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "waiting", property(lambda self: 0))


def forget_on_a_break(patch: pytest.MonkeyPatch) -> None:
    detach = Session.detach

    def mutant(self: Session, now: float) -> None:
        detach(self, now)
        self._confirm(self._sent)

    patch.setattr(Session, "detach", mutant)


def leave_the_former_session_alone(patch: pytest.MonkeyPatch) -> None:
    opened = Acceptor._opened

    def mutant(self: Acceptor, now: float, connection: bytes, type: int, number: int, *rest: Any) -> Any:
        attempt, ack, _, user = rest
        return opened(self, now, connection, type, number, attempt, ack, 0, user)

    patch.setattr(Acceptor, "_opened", mutant)


def give_up_without_a_word(patch: pytest.MonkeyPatch) -> None:
    ending = Session.ending

    def mutant(self: Session, now: float, reason: int) -> Transmit:
        said = ending(self, now, reason)
        return (
            Transmit([*self.route, session.frame(session.ACK, self.number)]) if reason == session.SILENT_END else said
        )

    patch.setattr(Session, "ending", mutant)


def say_nothing_to_strangers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Acceptor,
        "_refuse",
        staticmethod(lambda connection, number, code: Transmit([connection, acceptor.frame(session.ACK, number)])),
    )


def never_excuse_oneself(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "excuse", lambda self, now: None)


def use_a_session_after_its_end(patch: pytest.MonkeyPatch) -> None:
    begin = Dialler._begin
    kept: dict[int, Any] = {}

    def mutant(self: Dialler, now: float) -> Session:
        new = begin(self, now)
        new.number = kept.setdefault(id(self), new.number)
        return new

    patch.setattr(Dialler, "_begin", mutant)


MUTANTS = (
    take_what_was_there_before,
    skip_what_is_missing,
    send_nothing_again,
    confirm_one_too_many,
    confirm_what_was_only_seen,
    resume_what_nobody_knows,
    believe_late_openings,
    send_no_heartbeats,
    stay_calm_while_something_waits,
    never_call_anybody_silent,
    keep_heartbeats_empty,
    count_no_losses,
    forget_on_a_break,
    leave_the_former_session_alone,
    give_up_without_a_word,
    say_nothing_to_strangers,
    never_excuse_oneself,
    use_a_session_after_its_end,
)


@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_is_caught(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for script in SCRIPTS:
        try:
            script()
        except (AssertionError, ValueError, IndexError, KeyError) as problem:
            print(plant.__name__, script.__name__, str(problem)[:100])
            return
    for seed in range(40):
        try:
            storm(seed, 10.0)
        except (Broken, AssertionError, IndexError, KeyError) as problem:
            print(plant.__name__, seed, str(problem)[:100])
            return
    pytest.fail("no test noticed")

"""A registry server under faults by chance: nothing acknowledged is lost, nothing comes twice, agents find it again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from covey.bus.machine import Persist, Persisted
from covey.bus.simulation import Link
from covey.components.registry import history, proposed, raft, store
from covey.components.registry.agent import AgentMachine
from covey.components.registry.entries import Reigned, WritesOpened
from covey.components.registry.machine import RegistryMachine
from covey.components.registry.messages import AppendSystem
from covey.components.registry.states import State
from covey.errors import CoveyError
from registry_world import AGENTS, SERVER, RegistryWorld, loaded_from

SEEDS = int(os.environ.get("COVEY_SIM_SEEDS", "10"))


def storm(seed: int, server: Any = RegistryMachine, agent: Any = AgentMachine, seconds: float = 20.0) -> RegistryWorld:
    """Clients write, read and watch while the server is killed and paused and messages are lost; then all is healed."""
    found = RegistryWorld(seed, server, agent, Link(loss=0.05, duplicate=0.05, reorder=0.1))
    world, random = found.world, found.random
    for _ in range(4):
        found.client()
    watched = {prefix: found.watcher(prefix) for prefix in ("/app/", "/app/b", "/")}
    until = world.now + seconds

    def strike() -> None:
        if world.now < until:
            what = random.random()
            if what < 0.5:
                found.crash(random.uniform(0.05, 3.0))
            elif what < 0.7 and world.nodes[SERVER].running:
                world.pause(SERVER)
                world.after(random.uniform(0.1, 3.0), lambda: world.resume(SERVER))
            else:
                other = random.choice(AGENTS)
                world.cut(SERVER, other, one_way=random.random() < 0.5)
                world.after(random.uniform(0.1, 4.0), lambda: world.mend([(SERVER, other), (other, SERVER)]))
            world.after(random.expovariate(1.0), strike)

    world.after(random.expovariate(1.0), strike)
    world.run(seconds)
    world.heal()
    world.run(5.0)
    found.stop()
    world.run(3.0)
    truth = found.check()
    for prefix, batches in watched.items():
        truth.check_watch(prefix, batches)
    leading = msgspec.structs.replace(world.machine(SERVER, "registry").leading, index=0)
    assert leading.writable
    for number in AGENTS:
        world.eventually(
            lambda n=number: msgspec.structs.replace(world.machine(n, "registry").known, index=0) == leading,
            3.0,
            f"{number} found it again",
        )  # type: ignore[misc]
    waiting = [one for one in world.history if not one.done and not one.unknown]
    assert not waiting, f"never answered: {waiting}"
    return found


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_acknowledged_is_lost_and_nothing_comes_twice(seed: int) -> None:
    found = storm(seed)
    assert len([one for one in found.done if not isinstance(one.result, CoveyError)]) > 50
    assert len(found.world.faults) > 5


def test_one_seed_is_one_trace_under_any_hash_seed() -> None:
    code = "from test_registry_faults import storm; print(storm(3, seconds=6.0).world.digest())"
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent / "support")])
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == storm(3, seconds=6.0).world.digest(), done.stderr


# --- planted mistakes: every one must be noticed -----------------------------------------------------------------


class AcksBeforeSync(RegistryMachine):
    def step(self, now: float, input: Any = None) -> Any:
        effects = super().step(now, input)
        for order in [effect for effect in effects if isinstance(effect, Persist)]:
            effects += super().step(now, Persisted(order.number))
        return effects


class OldEpoch(RegistryMachine):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.raft.promised -= 1 if self.epoch > 1 else 0


class OpensWithoutTheGroup(RegistryMachine):
    def _answer_reads(self) -> None:
        if self.state is State.READS:
            self.raft.state = State.WRITES
        super()._answer_reads()


class WritesBeforeTheOpeningEntry(RegistryMachine):
    def _answer_reads(self) -> None:
        if self.state is State.OPENING:
            self.raft.state = State.FULL
            self.raft.turn("writes opened")
        super()._answer_reads()

    def _reigns(self, entry: Any) -> None:
        if not isinstance(entry.body, WritesOpened):
            super()._reigns(entry)


class IgnoresTheEpoch(RegistryMachine):
    def _append(self, question: Any, waiter: Any) -> None:
        super()._append(msgspec.structs.replace(question, epoch=self.epoch), waiter)

    _questions = {**RegistryMachine._questions, AppendSystem: _append}


class ForgetsWatchers(RegistryMachine):
    def _wake(self) -> None:
        if self.store.revision % 7:
            super()._wake()


class NeverNoticesALoss(AgentMachine):
    def _lost(self, now: float) -> None:
        self._ask_at = now + 100.0


class AsksOnce(AgentMachine):
    def _ask(self, now: float) -> None:
        super()._ask(now)
        self._ask_at = now + 1e9


def _without_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.Store, "answered", lambda self, request: None)


def _without_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposed.Proposed, "under_way", lambda self, request: None)


def _late_history(monkeypatch: pytest.MonkeyPatch) -> None:
    real = history.History.read
    monkeypatch.setattr(
        history.History, "read", lambda self, prefix, start, limit: real(self, prefix, start + 1, limit)
    )


def _short_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    real = loaded_from

    def short(written: Any, identity: Any = None) -> Any:
        kept = list(written)
        return real(kept[:-1] if len(kept) > 4 else kept, identity)

    monkeypatch.setattr("registry_world.loaded_from", short)


def _no_mod_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.Store, "mod_revision", lambda self, key: 0)


def _unchained(monkeypatch: pytest.MonkeyPatch) -> None:
    real = raft.Raft.propose

    def propose(self: Any, now: float, body: Any) -> Any:
        if not isinstance(body, Reigned) and self.log.last % 50 == 0:
            self.log._kept[-1] = self.log._kept[-1]._replace(chain=b"x" * 16)
        return real(self, now, body)

    monkeypatch.setattr(raft.Raft, "propose", propose)


@pytest.mark.parametrize(
    "server",
    [AcksBeforeSync, OldEpoch, OpensWithoutTheGroup, IgnoresTheEpoch, WritesBeforeTheOpeningEntry, ForgetsWatchers],
)
def test_a_planted_mistake_of_the_server_is_noticed(server: Any) -> None:
    _must_fail(server=server)


@pytest.mark.parametrize("agent", [NeverNoticesALoss, AsksOnce])
def test_a_planted_mistake_of_the_agent_is_noticed(agent: Any) -> None:
    _must_fail(agent=agent)


@pytest.mark.parametrize(
    "plant",
    [_without_answers, _without_under_way, _late_history, _short_recovery, _no_mod_revision, _unchained],
)
def test_a_planted_mistake_in_a_part_is_noticed(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    _must_fail()


def _must_fail(**mutant: Any) -> None:
    for seed in range(30):
        try:
            storm(seed, **mutant)
        except AssertionError:
            return
    pytest.fail("thirty storms noticed nothing")

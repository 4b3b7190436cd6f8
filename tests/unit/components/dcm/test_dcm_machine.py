"""The life of a node: which component starts when, what a verdict leads to, and what a crash does."""

from __future__ import annotations

import random
from typing import Any

import pytest
from covey.bus.machine import ImpossibleTransition
from covey.components.dcm import life
from covey.components.dcm.definitions import Replacement
from covey.components.dcm.identity import Copy, Elsewhere
from covey.components.dcm.machine import REQUIRED, NodeMachine
from covey.components.dcm.settings import CRASHES

ORDER = ("registry", "liveness", "groups", "resources")
OFFERED = {
    "registry.log": "registry",
    "registry.reads": "registry",
    "registry.writes": "registry",
    "dcm.local": "dcm",
    "dcm.join": "dcm",
    "liveness": "liveness",
    "groups": "groups",
    "resources": "resources",
}
ME = Copy("c" * 32, 2, "d" * 32, "card")
SAME = life.GlobalRead("card", ME, ME)
GONE = life.GlobalRead("card", ME, None)


class Node:
    """The machine with a service around it that does at once what it is told, unless it is in `deaf`."""

    def __init__(self, **plan: Any) -> None:
        self.machine = NodeMachine(life.Plan(ORDER, OFFERED, **plan))
        self.now = 0.0
        self.done: list[Any] = []
        self.deaf: set[type[Any]] = set()
        self.found = SAME
        self.replaced = life.Replaced(True)
        self.boots = 0

    def feed(self, input: Any = None) -> list[Any]:
        """Feed an input and all that follows from it at once; return the effects."""
        begin, inputs = len(self.done), [input]
        while inputs:
            effects = self.machine.step(self.now, inputs.pop(0))
            self.machine.check_invariants()
            self.done += effects
            for effect in effects:
                if type(effect) not in self.deaf:
                    inputs += self.answer(effect)
        return self.done[begin:]

    def answer(self, effect: Any) -> list[Any]:
        if isinstance(effect, life.StartComponent):
            return [life.ComponentStarted(effect.name)]
        if isinstance(effect, life.StopComponent):
            return [life.ComponentStopped(effect.name)]
        simple = {
            life.ReadGlobal: self.found,
            life.ReplaceIdentity: self.replaced,
            life.Discover: life.DiscoveryDone(),
            life.Announce: life.Announced(),
            life.Leave: life.Left(),
            life.EraseLocal: life.Erased(),
        }
        return [simple[type(effect)]] if type(effect) in simple else []

    def wait(self, seconds: float) -> list[Any]:
        """Let time pass, with every deadline in it."""
        begin, end = len(self.done), self.now + seconds
        while (deadline := self.machine.deadline) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.feed()
        self.now = end
        return self.done[begin:]

    def boot(self, server: bool = True) -> Node:
        self.boots += 1
        self.feed(life.Started(True, server, False, f"boot-{self.boots}"))
        return self

    def ready(self, *functions: str) -> list[Any]:
        begin = len(self.done)
        for function in functions:
            self.feed(life.FunctionReady(function))
        return self.done[begin:]

    def all_ready(self) -> Node:
        self.ready("registry.log", "registry.reads", "liveness", "groups", "registry.writes", "resources")
        self.feed(life.ControllersAsked(("controllers", "controller:gpu")))
        self.feed(life.ControllersReady())
        return self

    @property
    def state(self) -> str:
        return self.machine.state

    def of(self, type_: type[Any]) -> list[Any]:
        return [effect for effect in self.done if isinstance(effect, type_)]


def online() -> Node:
    node = Node().boot().all_ready()
    assert node.state == "online"
    return node


# --- starting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"defined": False}, "undefined"),
        ({"offline": True}, "offline"),
        ({"problem": "node.json is damaged"}, "failed"),
        ({}, "checking"),
    ],
)
def test_how_a_daemon_starts(facts: dict[str, Any], state: str) -> None:
    node = Node()
    given: dict[str, Any] = {"defined": True, "server": True, "offline": False, "boot_id": "boot"} | facts
    node.feed(life.Started(**given))
    assert node.state == state
    assert bool(node.of(life.StartComponent)) == (state == "checking")


def test_a_boot_in_its_steps() -> None:
    node = Node().boot().all_ready()
    assert node.of(life.Begin) == [life.Begin("boot-1")]
    assert [e.name for e in node.of(life.StartComponent)] == [*ORDER, "controllers", "controller:gpu"]
    assert [(e.step, e.how) for e in node.of(life.RecordStep)] == [
        (1, "done"),
        (2, "done"),
        (3, "done"),
        (4, "done"),
        (6, "done"),
        (7, "done"),
    ]
    states = [e.state for e in node.of(life.StateChanged)]
    assert states == ["checking", "starting", "configuring", "online"]


def test_on_a_registry_client_step_1_is_remote() -> None:
    node = Node().boot(server=False)
    assert node.of(life.RecordStep)[0] == life.RecordStep(1, "started registry", "remote")


def test_one_component_starts_after_the_other() -> None:
    node = Node()
    node.deaf.add(life.StartComponent)
    node.boot()
    for name in ORDER:
        assert node.of(life.StartComponent)[-1].name == name
        node.feed(life.ComponentStarted(name))
    assert len(node.of(life.StartComponent)) == 4


def test_local_configuration_is_renewed_before_anybody_may_use_it() -> None:
    node = Node().boot()
    assert node.of(life.OpenFunctions) == []
    effects = node.ready("registry.reads")
    kinds = [type(effect) for effect in effects]
    assert kinds.index(life.RefreshLocal) < kinds.index(life.OpenFunctions)


@pytest.mark.parametrize("missing", REQUIRED)
def test_it_is_not_announced_before_every_needed_function_is_there(missing: str) -> None:
    node = Node().boot()
    node.ready("registry.reads", *(function for function in REQUIRED if function != missing))
    node.feed(life.ControllersReady())
    assert node.state == "starting"
    assert node.machine.waiting_for == [missing]
    assert node.of(life.Announce) == []
    node.ready(missing)
    assert node.state == "online"


def test_discovery_is_waited_for_half_a_second_at_most() -> None:
    node = Node()
    node.deaf.add(life.Discover)
    node.boot().all_ready()
    assert node.state == "configuring"
    node.wait(0.49)
    assert node.of(life.Announce) == []
    node.wait(0.02)
    assert node.of(life.Announce) == [life.Announce()]
    node.feed(life.DiscoveryDone())
    assert node.of(life.Announce) == [life.Announce()]


def test_controllers_that_do_not_get_ready_do_not_hold_the_join() -> None:
    node = Node().boot()
    node.ready("registry.reads", *REQUIRED)
    assert node.state == "configuring"
    node.wait(1.1)
    assert node.state == "online"


def test_controllers_that_are_quicker_than_the_rest_are_not_forgotten() -> None:
    node = Node().boot()
    node.ready("registry.reads", "liveness", "groups", "resources")
    node.feed(life.ControllersReady())
    node.ready("registry.writes")
    assert node.state == "online"
    assert len(node.of(life.Discover)) == 1


def test_liveness_that_does_not_listen_is_told_again() -> None:
    node = Node()
    node.deaf.add(life.Announce)
    node.boot().all_ready()
    for _ in range(3):
        node.feed(life.Announced(False))
        node.wait(1.0)
    assert len(node.of(life.Announce)) == 4
    node.feed(life.Announced(True))
    assert node.state == "online"


# --- verdicts -------------------------------------------------------------------------------------------------


def test_undefined_while_away() -> None:
    node = Node()
    node.found = GONE
    node.boot()
    node.ready("registry.reads")
    assert node.state == "undefined"
    assert "undefined while it was away" in node.machine.reason
    assert [(e.step, e.how) for e in node.of(life.RecordStep)][-1] == (7, "failed")
    kinds = [type(effect) for effect in node.done]
    assert kinds.index(life.EraseLocal) > max(i for i, kind in enumerate(kinds) if kind is life.StopComponent)
    assert node.of(life.Announce) == []


def test_a_registry_that_cannot_be_read_decides_nothing() -> None:
    node = Node()
    node.found = life.GlobalRead("card", ME, None, known=False, why="no quorum")
    node.boot()
    node.ready("registry.reads")
    node.wait(60)
    assert node.state == "checking"
    assert node.machine.reason == "no quorum"
    assert node.of(life.EraseLocal) == []
    assert 55 <= len(node.of(life.ReadGlobal)) <= 62
    assert len([e for e in node.of(life.RecordStep) if e.how == "waiting"]) == 1
    node.found = SAME
    node.wait(1.0)
    assert node.state == "starting"


def test_without_a_registry_other_nodes_are_asked_and_only_their_proof_counts() -> None:
    node = Node().boot()
    node.wait(1.9)
    assert node.of(life.AskVerdict) == []
    node.wait(5.2)
    assert len(node.of(life.AskVerdict)) == 2
    assert node.state == "checking"
    node.feed(GONE)
    assert node.state == "undefined"
    assert len(node.of(life.EraseLocal)) == 1
    node.wait(60)
    assert len(node.of(life.AskVerdict)) == 2


def test_once_judged_nobody_is_asked() -> None:
    node = Node().boot()
    node.ready("registry.reads")
    node.wait(60)
    assert node.of(life.AskVerdict) == []


def test_replaced_identity_hardware() -> None:
    node = Node()
    node.found = life.GlobalRead("card-2", ME, ME)
    node.boot().all_ready()
    assert node.of(life.ReplaceIdentity) == [life.ReplaceIdentity("card-2")]
    assert node.state == "online"


def test_a_replacement_that_must_wait_for_open_writes() -> None:
    node = Node()
    node.found, node.replaced = life.GlobalRead("card-2", ME, ME), life.Replaced(False)
    node.boot()
    node.ready("registry.reads", "liveness", "groups", "resources")
    node.feed(life.ControllersReady())
    assert node.state == "starting"
    node.ready("registry.writes")
    assert node.state == "starting"
    assert len(node.of(life.ReplaceIdentity)) == 2
    node.replaced = life.Replaced(True)
    node.wait(1.0)
    assert node.state == "online"


def test_a_begun_replacement_is_completed() -> None:
    node = Node()
    new = Copy(ME.cluster_id, ME.number, ME.definition_id, "card-2")
    node.found = life.GlobalRead("card-2", ME, new, replacement=Replacement("card", "card-2"))
    node.boot().all_ready()
    assert node.state == "online"
    assert node.of(life.EraseLocal) == []


def test_a_clone_is_refused_and_nothing_is_changed() -> None:
    node = Node()
    node.found = life.GlobalRead("card", ME, ME, elsewhere=Elsewhere(boot="127.1.0.9:7400"))
    node.boot()
    node.ready("registry.reads")
    assert node.state == "failed"
    assert "127.1.0.9:7400" in node.machine.reason
    assert node.of(life.EraseLocal) == node.of(life.ReplaceIdentity) == node.of(life.RefreshLocal) == []


def test_a_clone_that_only_liveness_sees() -> None:
    node = Node().boot()
    node.ready("registry.reads")
    node.feed(life.CloneTold("online under another boot id"))
    assert node.state == "failed"
    assert node.machine.verdict is not None
    assert node.machine.verdict.code == "identity.clone"
    assert node.of(life.EraseLocal) == []


# --- leaving --------------------------------------------------------------------------------------------------


def test_offline_in_order() -> None:
    node = online()
    effects = node.feed(life.OfflineAsked("an operator"))
    assert node.state == "offline"
    assert effects[0] == life.KeepOffline(True)
    kinds = [type(effect) for effect in effects]
    assert kinds.index(life.Leave) < kinds.index(life.StopComponent)
    stopped = [effect.name for effect in effects if isinstance(effect, life.StopComponent)]
    assert stopped == ["controller:gpu", "controllers", "resources", "groups", "liveness", "registry"]


def test_components_stop_one_after_the_other() -> None:
    node = online()
    node.deaf.add(life.StopComponent)
    node.feed(life.OfflineAsked("an operator"))
    for name in ["controller:gpu", "controllers", "resources", "groups", "liveness", "registry"]:
        assert node.of(life.StopComponent)[-1].name == name
        node.feed(life.ComponentStopped(name))
    assert node.state == "offline"


def test_a_view_that_does_not_change_does_not_hold_the_end() -> None:
    node = online()
    node.deaf.add(life.Leave)
    node.feed(life.OfflineAsked("an operator"))
    assert node.of(life.StopComponent) == []
    node.wait(3.1)
    assert node.state == "offline"


def test_the_end_of_the_daemon_is_no_operators_word() -> None:
    node = online()
    node.feed(life.OfflineAsked("the daemon ends", operator=False))
    assert node.state == "offline"
    assert node.of(life.KeepOffline) == []


def test_online_again_has_a_new_boot_id_and_forgets_the_operators_word() -> None:
    node = online()
    node.feed(life.OfflineAsked("an operator"))
    node.feed(life.OnlineAsked(True, "boot-2"))
    node.all_ready()
    assert node.state == "online"
    assert node.machine.boot_id == "boot-2"
    assert node.of(life.KeepOffline) == [life.KeepOffline(True), life.KeepOffline(False)]
    assert [e.boot_id for e in node.of(life.Begin)] == ["boot-1", "boot-2"]


def test_online_asked_while_it_leaves() -> None:
    node = online()
    node.deaf.add(life.StopComponent)
    node.feed(life.OfflineAsked("an operator"))
    node.feed(life.OnlineAsked(True, "boot-2"))
    node.deaf.clear()
    node.feed(life.ComponentStopped("controller:gpu"))
    assert node.state == "checking"
    assert node.machine.boot_id == "boot-2"


def test_removed_by_the_others_it_comes_back_as_a_new_boot() -> None:
    node = online()
    effects = node.feed(life.Removed("boot-2", True))
    assert not any(isinstance(effect, life.Leave) for effect in effects)
    assert len([effect for effect in effects if isinstance(effect, life.StopComponent)]) == 6
    node.all_ready()
    assert (node.state, node.machine.boot_id) == ("online", "boot-2")


def test_offline_before_it_is_online() -> None:
    node = Node()
    node.deaf.add(life.StartComponent)
    node.boot()
    node.feed(life.OfflineAsked("an operator"))
    assert node.state == "offline"
    assert [e.name for e in node.of(life.StopComponent)] == ["registry"]
    node.feed(life.ComponentStarted("registry"))
    assert len(node.of(life.StartComponent)) == 1


def test_a_node_that_was_undefined_while_offline() -> None:
    node = online()
    node.feed(life.OfflineAsked("undefine"))
    node.feed(life.Undefined())
    assert node.state == "undefined"
    node.feed(life.Defined(False, "boot-3"))
    assert node.state == "checking"


# --- crashes --------------------------------------------------------------------------------------------------


def test_a_crash_is_recorded_and_the_component_started_again() -> None:
    node = online()
    effects = node.feed(life.ComponentExited("groups", -11, "signal 11"))
    assert effects == [life.Crashed("groups", -11, "signal 11"), life.CloseFunctions(("groups",))]
    node.wait(0.1)
    assert node.of(life.StartComponent)[-1].name != "groups"
    node.wait(0.2)
    assert node.of(life.StartComponent)[-1].name == "groups"
    assert node.state == "online"


def test_the_pauses_grow() -> None:
    node = online()
    pauses = []
    for _ in range(4):
        node.feed(life.ComponentExited("groups", 1))
        assert node.machine.deadline is not None
        pauses.append(round(node.machine.deadline - node.now, 3))
        node.wait(6.0)
    assert pauses == [0.2, 0.4, 0.8, 1.6]


def test_one_that_keeps_crashing_takes_the_node_offline_in_order() -> None:
    node = online()
    for _ in range(CRASHES):
        node.feed(life.ComponentExited("groups", 1, "out of memory"))
        node.wait(2.0)
    assert node.state == "failed"
    assert node.machine.reason == ("groups crashed 5 times within 60 s: out of memory; the node tries again after 30 s")
    assert node.of(life.KeepOffline) == []
    node.feed(life.OnlineAsked(True, "boot-2"))
    assert node.state == "checking"
    node.wait(100)
    assert node.of(life.ComeBack) == []


def test_a_node_that_gave_up_tries_again_after_longer_and_longer_pauses() -> None:
    node = online()
    pauses = []
    for _ in range(6):
        for _ in range(CRASHES):
            node.wait(2.0)
            node.feed(life.ComponentExited("groups", 1, "the disk is full"))
        assert node.state == "failed" and node.machine.deadline is not None
        before = node.now
        node.now = node.machine.deadline
        assert node.feed() == [life.ComeBack()]
        pauses.append(round(node.now - before))
        node.feed(life.Defined(True, "boot"))
        node.all_ready()
        assert node.state == "online"
    assert pauses == [30, 60, 120, 240, 300, 300]


@pytest.mark.parametrize("input", [life.Undefined(), life.OfflineAsked("asked")])
def test_what_somebody_else_wanted_meanwhile_is_not_undone(input: Any) -> None:
    node = online()
    for _ in range(CRASHES):
        node.feed(life.ComponentExited("groups", 1))
        node.wait(2.0)
    node.feed(input)
    node.wait(1000)
    assert node.of(life.ComeBack) == [] and node.state in ("offline", "undefined")


def test_a_clone_does_not_try_again_by_itself() -> None:
    node = online()
    node.feed(life.CloneTold("two of them"))
    assert node.state == "failed" and node.machine.deadline is None


def test_crashes_far_apart_do_not_add_up() -> None:
    node = online()
    for _ in range(3 * CRASHES):
        node.feed(life.ComponentExited("groups", 1))
        node.wait(30.0)
    assert node.state == "online"


def test_a_controller_that_keeps_crashing_hurts_nobody() -> None:
    node = online()
    for _ in range(4 * CRASHES):
        node.feed(life.ComponentExited("controller:gpu", 1))
        node.wait(2.0)
    assert node.state == "online"
    assert node.machine.deadline == node.now - 2.0 + 60.0
    node.wait(60.0)
    assert node.of(life.StartComponent)[-1].name == "controller:gpu"


def test_after_its_crash_liveness_is_told_again_and_resources_discover_again() -> None:
    node = online()
    node.feed(life.ComponentExited("liveness", 1))
    node.wait(1.0)
    assert node.ready("liveness") == [life.Announce()]
    node.feed(life.ComponentExited("resources", 1))
    node.wait(1.0)
    assert node.ready("resources") == [life.Discover()]


def test_a_crash_in_the_middle_of_a_boot_holds_nobody_else() -> None:
    node = Node()
    node.deaf.add(life.StartComponent)
    node.boot()
    node.feed(life.ComponentFailed("registry", "no memory"))
    assert [e.name for e in node.of(life.StartComponent)] == ["registry", "liveness"]
    node.deaf.clear()
    node.feed(life.ComponentStarted("liveness"))
    node.wait(1.0)
    node.all_ready()
    assert node.state == "online"
    assert sorted(e.step for e in node.of(life.RecordStep)) == [1, 2, 3, 4, 6, 7]


def test_a_registry_that_crashes_before_the_verdict_is_read_again() -> None:
    node = Node()
    node.deaf.add(life.ReadGlobal)
    node.boot()
    node.ready("registry.reads")
    node.feed(life.ComponentExited("registry", 1))
    node.feed(life.GlobalRead("card", ME, None, known=False, why="the registry died"))
    node.wait(5.0)
    assert node.state == "checking"
    assert node.machine.waiting_for == ["registry.reads"]
    node.deaf.clear()
    node.all_ready()
    assert node.state == "online"


# --- all together ---------------------------------------------------------------------------------------------


def test_what_cannot_be_shows_the_story() -> None:
    node = online()
    with pytest.raises(ImpossibleTransition, match=r"online \+ Started"):
        node.machine.step(0.0, life.Started(True, True, False, "x"))


@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_the_invariants_hold_and_it_can_still_come_online(seed: int) -> None:
    chance = random.Random(seed)
    node = Node()
    node.deaf = set(chance.sample([life.Leave, life.Discover, life.Announce, life.ReadGlobal], 2))
    node.boot()
    found = [SAME, SAME, life.GlobalRead("card", ME, None, known=False), life.GlobalRead("card-2", ME, ME)]
    for number in range(60):
        node.found = chance.choice(found)
        node.replaced = life.Replaced(chance.random() < 0.5)
        node.feed(
            chance.choice(
                [
                    life.ComponentExited(chance.choice(ORDER), 1),
                    life.ComponentExited("controllers", 1),
                    life.FunctionReady(chance.choice(list(OFFERED))),
                    life.OfflineAsked("an operator"),
                    life.OnlineAsked(True, f"again-{number}"),
                    life.Removed(f"removed-{number}", True),
                    life.ControllersAsked(("controllers",)),
                    life.ControllersReady(),
                    life.DiscoveryDone(),
                    life.Announced(chance.random() < 0.5),
                    life.Left(),
                    life.GlobalRead("card", ME, ME),
                    life.ComponentStarted(chance.choice(ORDER)),
                ]
            )
        )
        node.wait(chance.choice([0.0, 0.1, 1.0, 10.0]))
    node.deaf.clear()
    node.found, node.replaced = SAME, life.Replaced(True)
    node.wait(10.0)
    node.feed(life.OfflineAsked("an operator"))
    node.wait(10.0)
    assert node.state == "offline"
    node.feed(life.OnlineAsked(True, "last"))
    node.all_ready()
    assert (node.state, node.machine.boot_id) == ("online", "last")

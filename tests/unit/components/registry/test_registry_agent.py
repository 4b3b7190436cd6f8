"""The agent's machine by scripted steps: finding the primary, following it, noticing that it is gone."""

from __future__ import annotations

from typing import Any

import pytest
from covey.bus.machine import Address, ImpossibleTransition, Publish, Received, Send
from covey.components.registry.agent import NOBODY, AgentMachine, AskNow, CopyClosed, CopySaid, OthersKnown
from covey.components.registry.messages import FindPrimary, Leading, PeerDown, ServersChanged
from covey.components.registry.settings import Settings

SETTINGS = Settings(find_interval=0.5, find_misses=4, look_interval=5.0)


class Agent:
    """An agent on node 9 with the servers 1, 2 and 3."""

    def __init__(self) -> None:
        self.machine = AgentMachine(9, (1, 2, 3), SETTINGS)
        self.now = 50.0
        self.published: list[Leading] = []

    def step(self, input: Any = None) -> list[int]:
        """Step it; return the nodes it asked, and keep what it published."""
        effects = self.machine.step(self.now, input)
        self.machine.check_invariants()
        for effect in effects:
            if isinstance(effect, Publish) and effect.topic == "registry.leading":
                self.published.append(effect.body)
        sends = [effect for effect in effects if isinstance(effect, Send)]
        assert all(send.message == FindPrimary() and send.to.service == "registry" for send in sends)
        return [send.to.node for send in sends]

    def wait(self, seconds: float = 0.5) -> list[int]:
        self.now += seconds
        return self.step()

    def told(self, source: int, epoch: int, primary: int, phase: Any = "writes") -> list[int]:
        return self.step(Received(Address("registry", source), Leading(epoch, primary, phase, phase == "writes")))


@pytest.fixture
def agent() -> Agent:
    return Agent()


def test_it_asks_all_listed_servers_until_the_primary_itself_answers(agent: Agent) -> None:
    assert agent.machine.deadline == 0.0
    assert agent.step() == [1, 2, 3] and agent.published == [NOBODY]
    assert agent.machine.deadline == 50.5
    assert agent.told(2, 0, 0, "stale") == [], "a server that knows of nobody is no answer"
    assert agent.wait() == [1, 2, 3]
    assert agent.told(1, 4, 1, "reads") == []
    assert agent.published[1:] == [Leading(4, 1, "reads", False)] and agent.machine.following
    assert agent.wait(4.9) == [] and agent.wait(0.1) == [1], "then only the primary, and seldom"
    agent.told(1, 4, 1)
    assert agent.published[2:] == [Leading(4, 1, "writes", True)]
    agent.told(1, 4, 1)
    assert len(agent.published) == 3, "a duplicate is no change"


def test_another_servers_word_is_a_hint_whom_to_ask(agent: Agent) -> None:
    agent.step()
    assert agent.told(2, 4, 7) == [1, 2, 3, 7] and not agent.machine.following
    assert agent.told(3, 4, 7) == [], "the same hint is no reason to ask faster"
    agent.told(7, 4, 7)
    assert agent.machine.known.primary == 7


def test_four_questions_without_an_answer_are_a_loss(agent: Agent) -> None:
    agent.step()
    agent.told(1, 4, 1)
    assert agent.machine.answered
    for wait in (5.0, 0.5, 0.5, 0.5):
        assert agent.wait(wait) == [1] and agent.machine.following and not agent.machine.answered
    assert agent.wait() == [1, 2, 3]
    assert agent.published[-1] == Leading(4, 0, "offline", False) and agent.machine.searching_since == agent.now
    agent.told(1, 4, 1)
    assert agent.published[-1].primary == 1


def test_an_answer_in_time_keeps_it(agent: Agent) -> None:
    agent.step()
    agent.told(1, 4, 1)
    for _ in range(20):
        agent.wait()
        if agent.machine._misses == 3:
            agent.told(1, 4, 1)
    assert agent.machine.following and len(agent.published) == 2


def test_a_closed_link_is_a_loss_at_once_and_only_that_of_the_primary(agent: Agent) -> None:
    agent.step()
    agent.told(1, 4, 1)
    assert agent.step(PeerDown(2)) == [] and agent.machine.following
    assert agent.step(PeerDown(1)) == [1, 2, 3]
    assert agent.published[-1].primary == 0


def test_an_old_epoch_is_never_followed(agent: Agent) -> None:
    agent.step()
    agent.told(1, 4, 1)
    agent.told(2, 5, 2)
    assert agent.machine.known == Leading(5, 2, "writes", True), "the newer reign wins without asking"
    agent.told(1, 4, 1)
    assert agent.machine.known.primary == 2
    agent.step(PeerDown(2))
    agent.told(1, 4, 1)
    assert not agent.machine.following, "nor after a loss"
    assert agent.told(3, 4, 1) == [], "nor as a hint"


def test_a_primary_that_says_it_leads_no_more_is_left(agent: Agent) -> None:
    agent.step()
    agent.told(1, 4, 1)
    assert agent.told(1, 0, 0, "stale") == [1, 2, 3]
    assert not agent.machine.following
    agent.told(1, 4, 1)
    assert agent.told(1, 5, 3) == [1, 2, 3]
    assert agent.told(3, 5, 3) == [] and agent.machine.known.primary == 3


def test_other_servers_in_the_list(agent: Agent) -> None:
    agent.step()
    assert agent.step(ServersChanged((4, 5))) == [4, 5]
    agent.told(4, 2, 4)
    assert agent.step(ServersChanged((4, 6))) == [] and agent.machine.following
    assert agent.step(ServersChanged((6,))) == [6]
    assert agent.published[-1].primary == 0


def test_what_its_own_node_says_is_nothing_to_it_and_nonsense_tells_the_story(agent: Agent) -> None:
    agent.step()
    agent.told(9, 9, 9)
    agent.told(0, 9, 9)
    agent.step(Received(Address("liveness", 9), FindPrimary()))
    assert agent.machine.known == NOBODY
    with pytest.raises(ImpossibleTransition, match=r"(?s)the story:.*Received"):
        agent.machine.step(agent.now, object())


def test_what_the_own_copy_says_needs_no_questions(agent: Agent) -> None:
    agent.step()
    assert agent.step(CopySaid(Leading(4, 2, "writes", True, index=70))) == []
    assert agent.published[-1] == Leading(4, 2, "writes", True) and agent.machine.index == 70
    assert agent.machine.deadline is None and agent.wait(60) == []
    assert agent.step(PeerDown(2)) == [] and agent.machine.following, "the copy hears of the link by itself"
    assert agent.step(CopySaid(Leading(5, 9, "reads", False))) == []
    assert agent.published[-1].primary == 9, "only the copy can say that this node leads"
    assert agent.step(CopySaid(Leading(0, 0, "stale", False))) == [1, 2, 3]
    assert agent.published[-1] == Leading(5, 0, "stale", False)


def test_the_own_copy_may_be_the_last_to_hear_of_a_new_reign(agent: Agent) -> None:
    agent.step()
    agent.step(CopySaid(Leading(4, 2, "writes", True)))
    agent.told(3, 4, 2)
    assert agent.machine.deadline is None
    agent.told(3, 5, 3)
    assert agent.machine.known.primary == 3 and agent.machine.deadline is not None
    assert agent.step(CopySaid(Leading(4, 2, "writes", True))) == [] and agent.machine.known.primary == 3
    assert agent.step(CopySaid(Leading(0, 0, "stale", False))) == [] and agent.machine.known.primary == 3
    agent.step(CopySaid(Leading(5, 3, "writes", True)))
    assert agent.machine.deadline is None


@pytest.mark.parametrize(("primary", "asked"), [(2, [2]), (9, [1, 2, 3])])
def test_a_copy_that_is_closed_leaves_what_it_knew_of_others(agent: Agent, primary: int, asked: list[int]) -> None:
    agent.step()
    agent.step(CopySaid(Leading(4, primary, "writes", True)))
    assert agent.step(CopyClosed()) == asked
    assert agent.machine.following == (primary == 2)


def test_silent_servers_make_it_ask_other_nodes_a_few_at_a_time(agent: Agent) -> None:
    agent.step(OthersKnown((11, 12, 13, 14, 15, 16, 17)))
    for _ in range(3):
        assert agent.wait() == [1, 2, 3]
    assert agent.wait() == [1, 2, 3, 11, 12, 13, 14, 15]
    assert agent.wait() == [1, 2, 3, 11, 12, 13, 16, 17]
    assert agent.told(16, 4, 20) == [1, 2, 3, 11, 14, 15, 16, 17, 20], "any node's word is a hint"
    agent.told(20, 4, 20)
    assert agent.wait(5.0) == [20]


def test_whoever_waits_for_an_answer_has_the_primary_asked_at_once(agent: Agent) -> None:
    agent.step()
    agent.told(1, 4, 1)
    agent.now += 1.0
    assert agent.step(AskNow()) == [1]
    for _ in range(3):
        assert agent.wait() == [1]
    assert agent.wait() == [1, 2, 3], "2 s from the first question"

"""What one turn of the loop asks of a primary leaves as one message to each server; three machines, moved by hand."""

from __future__ import annotations

from typing import Any

import msgspec
from covey.bus.machine import Asked
from covey.components.registry import messages, peers
from registry_script import SETTINGS, Script

MANY = 32


def opened() -> Script:
    script = Script(3, settings=msgspec.structs.replace(SETTINGS, append_bytes=1 << 20))
    script.open(1)
    return script


def ask(script: Script, question: Any) -> int:
    """Ask server 1; the turn of its loop goes on."""
    request = len(script.questions) + 1
    script.questions[request] = question
    script.step(1, Asked(request, question))
    return request


def sent(script: Script, to: int) -> list[Any]:
    return [one.message for one in script.under_way(1, to, peers.Append)]


def test_the_puts_of_a_turn_are_one_message_to_each_server() -> None:
    script = opened()
    script.slow.add(1)
    last = script.last(1)
    puts = [
        ask(script, messages.Transact(f"p{number}", (), (messages.Operation("put", f"/app/{number}", number),)))
        for number in range(MANY)
    ]
    assert not script.flight and script.machines[1].deadline == 0.0
    script.step(1)
    for to in (2, 3):
        (message,) = sent(script, to)
        assert (message.previous, len(message.records)) == (last, MANY)
    script.deliver(1, 2, peers.Append)
    assert len(script.under_way(2, 1, peers.Appended)) == 1  # when all of them are on its disk
    script.sync(1)
    script.talk()
    assert all(script.result(put)["succeeded"] for put in puts)


def test_the_exact_reads_of_a_turn_share_a_round_and_those_that_come_meanwhile_the_next() -> None:
    script = opened()
    script.put(1, "x")
    script.talk()
    round = script.raft(1).reign.round
    first = [ask(script, messages.Get("/app/a")) for _ in range(MANY)]
    assert not script.flight and not set(first) & set(script.answers)
    script.step(1)
    assert [[one.round for one in sent(script, to)] for to in (2, 3)] == [[round + 1], [round + 1]]
    later = [ask(script, messages.Get("/app/a")) for _ in range(MANY)]
    script.step(1)
    assert len(script.flight) == 2
    script.deliver(1, 2, peers.Append)
    script.deliver(2, 1, peers.Appended)
    assert all(script.result(read)["value"] == "x" for read in first) and not set(later) & set(script.answers)
    assert [one.round for one in sent(script, 2)] == [round + 2]
    script.talk()
    assert all(script.result(read)["value"] == "x" for read in later)
    assert script.raft(1).reign.round == round + 2

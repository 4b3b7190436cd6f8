"""Definitions made, changed and taken away by many at once: each reads, is late, and asks twice; one truth stays."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from covey.components.dcm import entries
from covey.components.dcm.definitions import NodeDefinition
from covey.components.dcm.entries import NodeEntry
from define_world import Registry

NAMES, PORTS = ("web", "db", "mail"), (7400, 7500)


def described(chance: random.Random, serial: int) -> NodeDefinition:
    number = chance.randint(2, 4)
    address = f"127.1.0.{chance.randint(2, 4)}/16"
    name, port = chance.choice(NAMES), chance.choice(PORTS)
    return NodeDefinition(number, name, f"machine-{chance.randint(2, 4)}", f"{serial:032}", (address,), port)


def change(chance: random.Random) -> dict[str, Any]:
    """What `node modify`, or a new identity card, changes."""
    possible: list[dict[str, Any]] = [
        {"name": chance.choice(NAMES)},
        {"addresses": (f"127.1.0.{chance.randint(2, 4)}/16", f"127.2.0.{chance.randint(2, 4)}/16")},
        {"port": chance.choice(PORTS)},
        {"id": f"machine-{chance.randint(2, 4)}"},
    ]
    return chance.choice(possible)


class Actor:
    """One request: it read some time ago, and sends its transaction now, perhaps twice, perhaps after a crash."""

    def __init__(self, registry: Registry, chance: random.Random, serial: int) -> None:
        self.chance, self.request = chance, f"request-{serial}"
        read = list(registry.nodes())
        kind = chance.choice(("define", "modify", "modify", "undefine")) if read else "define"
        self.entry: NodeEntry | None = chance.choice(read) if read else None
        if kind == "define":
            node = described(chance, serial)
            same = [each for each in read if each.definition.id == node.id]
            self.transaction = entries.define(node, same)
        else:
            assert self.entry is not None
            wanted = entries.modify(self.entry, **change(chance)) if kind == "modify" else entries.undefine(self.entry)
            self.transaction = wanted

    def send(self, registry: Registry) -> bool:
        answers = {registry.txn(self.transaction, self.request) for _ in range(self.chance.randint(1, 2))}
        assert len(answers) == 1, "a request that came twice was answered in two ways"
        return answers.pop()[0]


@pytest.mark.parametrize("seed", range(20))
def test_however_late_the_requests_are_names_ids_and_addresses_stay_unique(seed: int) -> None:
    chance, registry = random.Random(seed), Registry()
    waiting: list[Actor] = []
    done = 0
    for serial in range(120):
        waiting.append(Actor(registry, chance, serial))
        while len(waiting) > chance.randint(0, 4):
            actor = waiting.pop(chance.randrange(len(waiting)))
            if chance.random() < 0.1:
                continue  # it crashed before it sent anything
            done += actor.send(registry)
            registry.check()
            for each in registry.nodes():
                assert registry.standing(each.definition.definition_id) == "defined"
    assert done > 20


def test_a_change_touches_nothing_else() -> None:
    registry = Registry()
    node = described(random.Random(1), 1)
    other = msgspec.structs.replace(
        node, number=9, name="other", id="machine-9", definition_id="9" * 32, addresses=("127.1.0.9/16",)
    )
    for each in (node, other):
        assert registry.txn(entries.define(each))[0]
    entry = registry.entry(node.definition_id)
    assert entry is not None
    assert not registry.txn(entries.modify(entry, name="other"))[0]
    assert registry.txn(entries.modify(entry, name="new", port=7999))[0]
    registry.check()
    changed = registry.entry(node.definition_id)
    assert changed is not None
    assert changed.definition == msgspec.structs.replace(node, name="new", port=7999)
    assert not registry.txn(entries.modify(entry, name="late"))[0]
    assert registry.txn(entries.undefine(changed))[0]
    assert not registry.txn(entries.modify(changed, name="after its end"))[0]
    assert [each.definition for each in registry.nodes()] == [other]

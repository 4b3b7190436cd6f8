"""Two registry processes of one node, forked from the same parent, must not give their writes the same request ids.

They did: the word that makes ids unique was drawn when the module was imported, before the fork. A write through a node
whose registry had been restarted was answered with what an earlier one had come to, and never applied.
"""

from __future__ import annotations

import os

from covey.components.registry.calls import RequestIds


def ids_of_a_child() -> bytes:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, RequestIds().new().encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        found = said.read()
    os.waitpid(child, 0)
    return found


def test_a_forked_process_draws_its_own_word() -> None:
    found = [ids_of_a_child(), ids_of_a_child(), RequestIds().new().encode()]
    assert all(found) and len(set(found)) == 3


def test_each_write_has_an_id_of_its_own() -> None:
    ids = RequestIds()
    assert len({ids.new() for _ in range(1000)}) == 1000

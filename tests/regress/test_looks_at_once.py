"""Two looks at one mount at once: the second took the first one's question for a mount that does not answer.

A discovery that met a read then stored a size of null for a sound file system, until the next discovery.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from covey.controllers.filesystem import mounts


def test_both_looks_get_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked, go_on = os.statvfs, threading.Event(), threading.Event()
    calls = []

    def slow(point: str) -> os.statvfs_result:
        calls.append(point)
        asked.set()
        assert go_on.wait(30)
        return real(point)

    monkeypatch.setattr(os, "statvfs", slow)
    looker = mounts.Looker(patience=30)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(looker.look, ["/"])
        assert asked.wait(30)
        second = pool.submit(looker.look, ["/", "/nowhere-at-all"])
        go_on.set()
        assert isinstance(first.result()["/"], tuple)
        answers = second.result()
    assert answers["/"] == first.result()["/"]
    assert isinstance(answers["/nowhere-at-all"], FileNotFoundError)
    assert 1 <= len(calls) <= 2

"""A `covey` command run in this process, and a bus that answers from a table instead of a daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import click.testing
import pytest
from covey.bus import client
from covey.bus.messages import NodeInfo
from covey.cli.root import root
from covey.errors import CoveyError, NoVerb

Answer = Any | Callable[..., Any]


@dataclass
class FakeBus:
    """Answers `(service, verb)` with a value, an error to raise, or what a function of the arguments returns."""

    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)
    node: NodeInfo = field(default_factory=lambda: NodeInfo(1, "n1", "id-1", "cluster-1", "lab", "boot-1"))
    name: str = "client-1"
    calls: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    state: Any = None

    async def call(
        self, service: str, verb: str, /, *, node: Any = None, timeout: float = 10.0, cluster: str = "", **given: Any
    ) -> Any:
        await asyncio.sleep(0)  # as a real call does: else signals and timers never get their turn
        self.calls.append((service, verb, given))
        assert len(self.calls) < 1000, "the command asks for ever"
        self.options.append({"node": node, "timeout": timeout, "cluster": cluster})
        if (service, verb) not in self.answers:
            raise NoVerb(f"the fake bus knows no {service}.{verb}")
        answer = self.answers[service, verb]
        if callable(answer):
            answer = answer(**given)
        if isinstance(answer, CoveyError):
            raise answer
        return answer

    async def wait_for_service(self, service: str, *, node: Any = None, timeout: float = 30.0) -> None:
        return None


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> FakeBus:
    fake = FakeBus()

    @asynccontextmanager
    async def connect(state: Any = None) -> Iterator[FakeBus]:  # type: ignore[misc]
        fake.state = state
        yield fake

    monkeypatch.setattr(client, "connect", connect)
    return fake


@pytest.fixture
def covey(monkeypatch: pytest.MonkeyPatch) -> Callable[..., click.testing.Result]:
    """Run `covey WORDS…`; standard output and standard error apart."""
    monkeypatch.delenv("COVEY_STATE", raising=False)
    monkeypatch.delenv("COVEY_DEBUG", raising=False)

    def run(*words: str, **more: Any) -> click.testing.Result:
        return click.testing.CliRunner().invoke(root, list(words), **more)

    return run

"""`covey ping`: whether a service of a node answers, how fast, and by which way."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click

from ..errors import CoveyError, UsageError
from .connection import Session, answer
from .names import node_number
from .output import Block
from .verbs import alone


@alone("ping", examples=["covey ping registry", "covey ping dcm@n2 --count 5 -o json"])
@click.argument("target", metavar="SERVICE[@NODE]")
@click.option("--count", type=click.IntRange(1, 1000), default=3, show_default=True, metavar="N", help="How often.")
def command(target: str, count: int) -> int:
    """Ask a service to answer, and measure how long it takes.

    SERVICE is a name on the bus, such as dcm, registry, liveness, groups, resources or bus (the broker itself); NODE
    is a node's number or name, by default this one. Every service answers; a service that hangs does not, and the
    exit code is 7. There is no pause between the questions.
    """
    service, at, where = target.partition("@")
    if not service or (at and not where):
        raise UsageError(f"{target!r} is not SERVICE or SERVICE@NODE", "for example: covey ping registry@2")

    async def ask(session: Session) -> Any:
        import asyncio

        number = await node_number(session, where) if where else None
        now = asyncio.get_running_loop().time
        times = []
        for _ in range(count):
            began = now()
            await session.call(service, "ping", node=number)
            times.append(round((now() - began) * 1000, 3))
        return {
            "service": service,
            "node": session.bus.node.number if number is None else number,
            "rtt_ms": times,
            "route": _route(session, service, number),
            "lost": await _lost(session, number),
        }

    return answer(ask, _text)


def _route(session: Session, service: str, number: int | None) -> list[str]:
    here = session.bus.node.number
    hops = [session.bus.name, f"broker@{here}"]
    if number not in (None, here):
        hops.append(f"broker@{number}")
    return [*hops, f"{service}@{here if number is None else number}"]


async def _lost(session: Session, number: int | None) -> dict[str, dict[str, int]]:
    """Return what the brokers on the way have lost or refused since they started, by kind; those that say nothing are
    left out."""
    here = session.bus.node.number
    found = {}
    for node in dict.fromkeys((here, here if number is None else number)):
        with suppress(CoveyError):
            found[f"broker@{node}"] = (await session.call("bus", "status", node=node))["losses"]
    return found


def _text(data: dict[str, Any]) -> list[Block]:
    times = data["rtt_ms"]
    lines: list[Block] = [f"{data['service']}@{data['node']}: {time:.3f} ms" for time in times]
    if len(times) > 1:
        lines.append(f"min {min(times):.3f}, mean {sum(times) / len(times):.3f}, max {max(times):.3f} ms")
    for broker, losses in data["lost"].items():
        if losses:
            told = ", ".join(f"{name} {count}" for name, count in losses.items())
            lines.append(f"{broker} has lost or refused since its start: {told}")
    return [*lines, "way: " + " > ".join(data["route"])]

"""`covey cluster balance FILE`: the plan that a file of rules and schedule leads to, shown or carried out."""

from __future__ import annotations

import datetime
from typing import Any

import click

from ..errors import CoveyError, InvalidFile, MoveFailed
from .connection import Session, answer
from .names import by_name
from .output import Block, Table, note
from .waiting import until

MOVE_SECONDS = 90.0
"""For one move to end: a node that is not online in the target within 30 s goes back."""


def balance(file: str, apply: bool, at: datetime.datetime | None) -> int:
    """Show what to move, or move it."""
    from ..components.dcm.balance_file import load_balance

    wanted = load_balance(file)

    async def ask(session: Session) -> Any:
        plan = await _plan(session, wanted, at or datetime.datetime.now())  # noqa: DTZ005  (people's own time of day)
        session.warnings += plan.pop("notes")
        if apply:
            await _carry_out(session, plan["moves"])
        return plan

    return answer(ask, _blocks, timeout=600 if apply else 30, code=_code)


async def _plan(session: Session, wanted: Any, now: datetime.datetime) -> dict[str, Any]:
    import msgspec

    from ..components.dcm.balance import Place, Pool, plan
    from ..components.dcm.balance_file import wanted_now

    listed = await session.call("dcm", "node_ls")
    pools: list[Pool] = []
    owners: dict[int, str] = {}
    for name, pool in wanted.pools.items():
        numbers = [node if isinstance(node, int) else by_name(listed, node) for node in pool.nodes]
        for number, written in zip(numbers, pool.nodes, strict=True):
            if number in owners:  # once by its name, once by its number: the file's own check cannot know
                text = f"{written!r} of the pool {name!r} is the node {number}, which is in the pool {owners[number]!r}"
                raise InvalidFile(f"{text} already", "a node is in one pool, once")
            owners[number] = name
        counts, why = wanted_now(pool, now)
        pools.append(Pool(name, tuple(numbers), counts, why))
    asked = sorted({number for pool in pools for number in pool.nodes})
    places = [msgspec.convert(each, Place) for each in await session.call("dcm", "cluster_places", numbers=asked)]
    found = plan(pools, {place.number: place for place in places}, session.bus.node.number)
    plain = msgspec.to_builtins(found)
    moves = [{**move, "state": "planned", "ms": None, "error": None} for move in plain["moves"]]
    return {"moves": moves, "notes": list(plain["notes"])}


async def _carry_out(session: Session, moves: list[dict[str, Any]]) -> None:
    """Make the moves one after the other; the first that fails is the last."""
    import asyncio

    now = asyncio.get_running_loop().time
    for move in moves:
        began = now()
        note(f"{move['name']}: {move['from']} to {move['to']}: {move['reason']}")
        try:
            await session.call("dcm", "node_send", number=move["number"], to=move["to"])
            await _until_there(session, move)
        except CoveyError as why:
            move["state"], move["error"] = "failed", {"code": why.code, "message": why.message, "hint": why.hint}
            for rest in moves[moves.index(move) + 1 :]:
                rest["state"] = "not tried"
            return
        move["state"], move["ms"] = "done", round((now() - began) * 1000, 1)


async def _until_there(session: Session, move: dict[str, Any]) -> None:
    if move["number"] == session.bus.node.number:  # with it this session is in the other cluster

        async def ask() -> Any:
            moving = await session.call("dcm", "node_moving")
            return {"cluster": moving["to"], "state": "online" if moving["state"] == "idle" else "", "move": moving}
    else:

        async def ask() -> Any:
            return (await session.call("dcm", "cluster_places", numbers=[move["number"]]))[0]

    def over(place: Any) -> bool:
        there = place["cluster"] == move["to"] and place["state"] == "online"
        return there or bool(failed(place))

    def failed(place: Any) -> Any:
        moved = place["move"]
        return moved["error"] if moved and moved["state"] == "idle" and moved["to"] == move["to"] else None

    place = await until(
        session,
        ask,
        lambda place: f"{move['name']} in {place['cluster'] or 'none'}, {place['state']}",
        over,
        f"{move['name']} to be in {move['to']}",
    )
    if error := failed(place):
        raise MoveFailed(f"{move['name']} did not come to {move['to']}: {error['message']}", error["hint"])


def _blocks(data: dict[str, Any]) -> list[Block]:
    rows = [
        (
            move["number"],
            move["name"],
            move["from"],
            move["to"],
            move["state"] if move["ms"] is None else f"{move['state']}, {move['ms']:.0f} ms",
            move["error"]["message"] if move["error"] else move["reason"],
        )
        for move in data["moves"]
    ]
    return [Table(("number", "name", "from", "to", "move", "why"), rows, "nothing is to be moved")]


def _code(data: dict[str, Any]) -> int:
    return 1 if any(move["error"] for move in data["moves"]) else 0


def moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime.datetime | None:
    """Read `2026-11-23 20:00`, the local time that a plan is made for."""
    if value is None:
        return None
    try:
        return datetime.datetime.fromisoformat(value).replace(tzinfo=None)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no date and time, as 2026-11-23 20:00") from None

"""`covey registry`: read, write and watch the replicated store, and see whether it takes writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from ..errors import Compacted, UsageError
from . import registry_data, registry_rescue, registry_servers
from .connection import Session, answer, run
from .options import settings
from .output import Block, Fields, Stream, Table, cell
from .registry_servers import servers_table
from .verbs import Noun
from .waiting import PASSING

WATCH_SECONDS = 20.0
"""How long the service may hold a watch question; an empty answer then renews it."""

command = Noun(
    "registry",
    help="The System Registry: a replicated, transactional store of small values under keys like /app/name. Reads "
    "open before writes when a cluster starts; every write has a revision, and a watch from a revision misses nothing. "
    "Users write below /app/ only.",
)
for verb in (*registry_data.VERBS, *registry_rescue.VERBS, *registry_servers.VERBS):
    command.add_command(verb)


def _consistency(function: Any) -> Any:
    return click.option(
        "--consistency",
        type=click.Choice(["linear", "stale"]),
        default="linear",
        show_default=True,
        help="linear: current, or an error. stale: what this side has, possibly old, even without a quorum.",
    )(function)


@command.verb("status", examples=["covey registry status", "covey registry status -o json"])
def status() -> int:
    """Show whether the registry takes writes, and how its servers are.

    The phase goes from offline over stale and reads to writes; `closed because` says what is missing. The incarnation
    (generation, epoch, index) says how new a copy is, and `tolerates` how many of
    the servers may be away at a time, those that are away now included. Of each
    server: whether it is the primary, a follower, a learner that is being filled, damaged or offline, how new its copy
    is, and how many entries it lacks. `direct links` are those of the server that answers: to whom it speaks over a
    connection of their own, and to whom by the brokers.
    """
    return answer(lambda session: session.call("registry", "status"), registry_blocks)


def registry_blocks(data: dict[str, Any]) -> list[Block]:
    """Return how a person sees the state of the registry; `covey cluster status` shows it too."""
    pairs = [
        ("phase", data.get("phase")),
        ("writable", data.get("writable")),
        ("closed because", data.get("closed_because") or None),
        ("revision", data.get("revision")),
        ("incarnation", ".".join(str(part) for part in data.get("incarnation") or ())),
        ("primary", data.get("primary") or None),
        ("tolerates", _losses(data) if "tolerates" in data else None),
        ("direct links", _links(data.get("direct") or ())),
    ]
    blocks: list[Block] = [Fields([(name, value) for name, value in pairs if value is not None])]
    blocks += ["", servers_table(data.get("servers", []))]
    for found in data.get("damaged") or []:
        blocks.append(f"damaged: {found.get('path')} at byte {found.get('position')}: {found.get('reason')}")
    return blocks


def _links(ways: Sequence[dict[str, Any]]) -> str | None:
    """Return to which other servers the one that answers speaks directly, and to which by the brokers."""
    found: dict[bool, list[str]] = {True: [], False: []}
    for way in ways:
        found[bool(way["up"])].append(str(way["number"]))
    told = [f"to {', '.join(found[True])}"] if found[True] else []
    told += [f"by the brokers to {', '.join(found[False])}"] if found[False] else []
    return "; ".join(told) or None


def _losses(data: dict[str, Any]) -> str:
    if (number := data["tolerates"]) == 0:
        return "no loss of a server"
    away = sum(server.get("state") == "offline" for server in data.get("servers", []))
    return f"the loss of {number} server{'s' if number > 1 else ''}" + (f"; {away} offline now" if away else "")


@command.verb("get", examples=["covey registry get /app/greeting", "covey registry get /nodes/1 -o json"])
@click.argument("key")
@_consistency
def get(key: str, consistency: str) -> int:
    """Print the value of a key.

    A text value is printed as it is, any other as JSON. -o json adds the revision of the whole registry, the revision
    at which this key last changed (what --if-revision of `put` wants), and whether the answer is linear or stale.
    """

    async def ask(session: Session) -> Any:
        data = await session.call("registry", "get", key=key, consistency=consistency)
        if data["consistency"] == "stale":
            session.warnings.append("read with consistency stale: this may be an old value")
        return data

    return answer(ask, lambda data: [value_text(data["value"])])


def value_text(value: Any) -> str:
    """Return a registry value as `get` prints it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@command.verb("ls", examples=["covey registry ls /app/", "covey registry ls /nodes/ -o json"])
@click.argument("prefix", default="/")
@_consistency
def ls(prefix: str, consistency: str) -> int:
    """List the keys that begin with PREFIX, with their values.

    All of them are read at one revision. The default prefix is everything.
    """

    async def ask(session: Session) -> Any:
        data = await session.call("registry", "ls", prefix=prefix, consistency=consistency)
        if data["consistency"] == "stale":
            session.warnings.append("read with consistency stale: this may be old")
        return data["items"]

    def text(data: list[dict[str, Any]]) -> list[Block]:
        rows = [(item["key"], item["mod_revision"], _short(value_text(item["value"]))) for item in data]
        return [Table(("key", "changed at", "value"), rows, f"no keys below {prefix}", cut=True)]

    return answer(ask, text)


def _short(text: str, length: int = 100) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _written(data: dict[str, Any]) -> list[Block]:
    return [f"revision {data['revision']}" if data["succeeded"] else f"not written (revision {data['revision']})"]


def _succeeded(data: dict[str, Any]) -> int:
    return 0 if data["succeeded"] else 3


@command.verb(
    "put", examples=["covey registry put /app/greeting hello", "covey registry put /app/plan --json - < plan.json"]
)
@click.argument("key")
@click.argument("value")
@click.option("--json", "as_json", is_flag=True, help="VALUE is JSON; otherwise it is text.")
@click.option("--if-revision", type=int, metavar="R", help="Only if the key last changed at R (0: does not exist).")
def put(key: str, value: str, as_json: bool, if_revision: int | None) -> int:
    """Write a value below /app/.

    VALUE - stands for standard input, taken as it is. It returns when the value is durable. With --if-revision nothing
    is written, and the exit code is 3, when somebody else changed the key in between.
    """
    text = _standard_input() if value == "-" else value
    body = _json(text) if as_json else text

    def ask(session: Session) -> Any:
        return session.call("registry", "put", key=key, value=body, if_revision=if_revision)

    return answer(ask, _written, code=_succeeded)


MOST_INPUT = 1 << 22
"""Bytes taken of standard input: more than a value may have, however its JSON is written."""


def _standard_input() -> str:
    data = sys.stdin.buffer.read(MOST_INPUT + 1)
    if len(data) > MOST_INPUT:
        raise UsageError(
            f"standard input holds more than {MOST_INPUT >> 20} MiB",
            "a value has 1 MiB at most: put parts under several keys",
        )
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        raise UsageError(f"standard input is not text in UTF-8: {problem}", "values are text or JSON") from None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise UsageError(f"with --json the value must be JSON: {problem}", "text needs double quotes in it") from None


@command.verb("delete", examples=["covey registry delete /app/greeting"])
@click.argument("key")
@click.option("--if-revision", type=int, metavar="R", help="Only if the key last changed at R.")
def delete(key: str, if_revision: int | None) -> int:
    """Delete a key below /app/.

    It returns when the deletion is durable. With --if-revision nothing is deleted, and the exit code is 3, when
    somebody else changed the key in between.
    """

    def ask(session: Session) -> Any:
        return session.call("registry", "delete", key=key, if_revision=if_revision)

    return answer(ask, _written, code=_succeeded)


@command.verb(
    "watch", examples=["covey registry watch /app/", "covey registry watch /app/ --from 12 --count 1 -o json"]
)
@click.argument("prefix", default="/")
@click.option("--from", "start", type=int, metavar="R", help="Begin at revision R (default: after the present one).")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after N lines; a line is a revision.")
def watch(prefix: str, start: int | None, count: int | None) -> int:
    """Print changes below PREFIX as they happen: one line for each revision, in order, none missing and none twice.

    Ends at Ctrl-C or after --count lines. When the changes from that revision are no longer kept, the last line is
    {"compacted": R}, the exit code 1: list the prefix, then watch on from revision R. A short loss of the connection
    is bridged without a gap.
    """
    stream = Stream(settings())

    async def follow(session: Session) -> int:
        begin = start
        if begin is None:
            begin = (await session.call("registry", "watch", prefix=prefix, from_revision=0))["to"] + 1
        stream.remark(f"watching {prefix} from revision {begin}; Ctrl-C ends it")
        return await _follow(session, stream, prefix, begin, count)

    return run(follow, endless=True)


async def _follow(session: Session, stream: Stream, prefix: str, begin: int, count: int | None) -> int:
    shown = 0
    while True:
        try:
            batch = await patient(session, stream, "registry", "watch", prefix=prefix, from_revision=begin)
        except Compacted as problem:
            resume = int(problem.details.get("compacted", 0))
            stream.line({"compacted": resume}, f"error[{problem.code}]: {problem.message}")
            stream.remark(f"  hint: {problem.hint}")
            return 1
        for revision, events in _by_revision(batch["events"]):
            stream.line({"revision": revision, "events": events}, _change(revision, events))
            shown += 1
            if shown == count:
                return 0
        begin = batch["to"] + 1


def _by_revision(events: list[dict[str, Any]]) -> list[tuple[int, list[dict[str, Any]]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        shown = {"type": event["type"], "key": event["key"], "value": event.get("value")}
        found.setdefault(event["revision"], []).append(shown)
    return sorted(found.items())


def _change(revision: int, events: list[dict[str, Any]]) -> str:
    parts = [f"{event['type']} {event['key']}" + _new_value(event) for event in events]
    return f"{revision:>8}  " + "; ".join(parts)


def _new_value(event: dict[str, Any]) -> str:
    return f" = {cell(value_text(event['value']))}" if event["type"] == "put" else ""


async def patient(session: Session, stream: Stream, service: str, verb: str, **arguments: Any) -> Any:
    """Ask a long question again and again, through restarts of what answers; gives up after the command's timeout.

    The cursor is in the arguments, so asking again after a loss neither misses nor doubles anything.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    lost_at = 0.0
    while True:
        try:
            return await session.ask(service, verb, WATCH_SECONDS + 10, wait=WATCH_SECONDS, **arguments)
        except PASSING as problem:
            if lost_at == 0.0:
                lost_at = loop.time()
                stream.remark(f"-- {problem.message}; trying again --")
            elif loop.time() - lost_at > session.timeout:
                raise
            await asyncio.sleep(0.3)

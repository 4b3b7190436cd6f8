"""`covey tap`: what passes a broker, as it passes, with an account of every message that matched.

The filter runs in the broker (its service `bus`); this side fetches what matched, decodes bodies and prints. The last
line is always the summary, also after Ctrl-C, and its numbers are counted, not inferred from one another: matched =
shown + dropped + undecodable + sampled_out. What a tap of several brokers shows is in the order of arrival here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import click

from ..errors import CoveyError
from .connection import Session, run
from .names import node_number
from .options import DURATION, settings
from .output import Stream, cell, plain, print_error
from .unbuilt import TAP, refuse, unbuilt_option
from .verbs import alone

FETCH_SECONDS = 0.5
"""How long a fetch waits for a first record; also what Ctrl-C may have to wait, so that no fetched record is lost."""

_SHORT = {"request": "req", "reply": "rep", "error": "err", "event": "evt", "control": "ctl"}


@dataclass
class Account:
    """What became of the messages that matched, over all brokers that are tapped."""

    passed: int = 0
    matched: int = 0
    shown: int = 0
    dropped: int = 0
    undecodable: int = 0
    sampled_out: int = 0

    @property
    def sound(self) -> bool:
        """Whether every message that matched is accounted for."""
        return self.matched == self.shown + self.dropped + self.undecodable + self.sampled_out

    def line(self) -> dict[str, Any]:
        """Return the last line of a tap."""
        return {"summary": dict(vars(self))}

    def text(self) -> str:
        """Return the last line for a person."""
        return (
            f"{self.passed} passed, {self.matched} matched = {self.shown} shown + {self.dropped} dropped "
            f"+ {self.undecodable} undecodable + {self.sampled_out} sampled out"
        )


@dataclass
class Reader:
    """One tap at one broker: what it is called there and what came from it."""

    node: int | None
    tap: int
    received: int = 0
    unshown: int = 0
    counters: dict[str, int] = field(default_factory=dict)


@alone(
    "tap",
    examples=[
        "covey tap",
        'covey tap \'kind == "request" && topic =~ "registry.*"\' --payload',
        "covey tap --destination 'registry@*' --for 5s -o json",
        "covey tap --kind event --node all --count 10",
    ],
    short_help="See the messages that pass a node's broker.",
)
@click.argument("filter", required=False)
@click.option("--kind", type=click.Choice(["request", "reply", "error", "event", "control"]), help="Of this kind only.")
@click.option("--topic", metavar="PATTERN", help="The verb of a request or the topic of an event, like 'liveness.*'.")
@click.option("--source", metavar="PATTERN", help="Who sent it, like 'client-*'.")
@click.option("--destination", metavar="PATTERN", help="Whom it is for, like 'registry*'.")
@click.option("--node", metavar="NODE|all", help="Another node's broker, or those of all members (default: this one).")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after N messages.")
@click.option("--for", "duration", type=DURATION, metavar="TIME", help="Stop after this time, like 5s.")
@click.option("--payload", is_flag=True, help="Show what is in the messages too.")
@unbuilt_option("--pairs", is_flag=True, spec="13.4", summary="One line for each request with its answer and latency.")
@unbuilt_option("--story", metavar="CAUSE", spec="13.4", summary="Everything that one cause led to.")
@unbuilt_option("--sample", metavar="1/N", spec="13.4", summary="Every Nth message only.")
@unbuilt_option("--explain", is_flag=True, spec="13.4", summary="Show what part of the filter runs where.")
@unbuilt_option("--write", metavar="FILE.pcapng", spec="13.4", summary="Record to a file.")
def command(
    filter: str | None,
    kind: str | None,
    topic: str | None,
    source: str | None,
    destination: str | None,
    node: str | None,
    count: int | None,
    duration: float | None,
    payload: bool,
) -> int:
    """Show every request, reply, error and event that passes a node's broker, until Ctrl-C.

    FILTER is an expression over the fields kind, topic, source, destination, direction, cause, id and size: == and !=
    compare, =~ matches a shell pattern, like an SQL one, `in` a list, < and > compare numbers (size > 10kB); && and ||
    join, ! turns round. The options --kind, --topic, --source and --destination say the same more shortly; all that is
    given must hold.

    The filter runs in the broker. A reader that is too slow never slows the bus down: what it misses is counted. The
    last line accounts for every message that matched: shown, dropped (missed, or beyond --count), undecodable or
    sampled out.

    `covey tap read`, `play`, `snap` and `hist` are for recordings (not built yet).
    """
    if filter in TAP:
        refuse(f"covey tap {filter}", TAP[filter].spec)
    patterns = {"topic": topic, "source": source, "destination": destination}
    joined = _joined(filter, kind, patterns)
    stream = Stream(settings())

    async def watch(session: Session) -> int:
        return await _Watch(session, stream, joined, payload, count).run(node, duration)

    return run(watch, endless=True)


def _joined(filter: str | None, kind: str | None, patterns: dict[str, str | None]) -> str:
    """Return one filter that holds when all that was said does; raises BadExpression for the one that was written."""
    from ..bus.tap import FIELDS
    from ..config.expression import quote
    from ..config.predicate import predicate

    parts = [] if kind is None else [f"kind == {quote(kind)}"]
    parts += [f"{name} =~ {quote(pattern)}" for name, pattern in patterns.items() if pattern is not None]
    if filter is not None:
        predicate(filter, FIELDS)  # by itself, so that a mistake is shown in what was typed
        parts.append(f"({filter})" if parts else filter)
    return " && ".join(parts)


class _Watch:
    """One run of the command: taps at one or several brokers, printed as one stream."""

    def __init__(self, session: Session, stream: Stream, filter: str, payload: bool, count: int | None) -> None:
        import asyncio

        self.session = session
        self.stream = stream
        self.filter = filter
        self.payload = payload
        self.count = count
        self.account = Account()
        self.readers: list[Reader] = []
        self.enough = asyncio.Event()
        self.said_dropped = 0

    async def run(self, node: str | None, duration: float | None) -> int:
        import asyncio

        for target in await self._targets(node):
            made = await self.session.call("bus", "tap_attach", node=target, filter=self.filter, payload=self.payload)
            self.readers.append(Reader(target, made["tap"]))
        self._stop_at_signals()
        if duration is not None:
            asyncio.get_running_loop().call_later(duration, self.enough.set)
        self.stream.remark(f"tap on {', '.join(map(_place, self.readers))}; Ctrl-C ends it")
        code = 0
        try:
            async with asyncio.TaskGroup() as group:
                for reader in self.readers:
                    group.create_task(self._read(reader))
        except* CoveyError as several:
            problem = several.exceptions[0]
            assert isinstance(problem, CoveyError)
            print_error(problem, as_json=self.stream.form == "json")
            code = problem.exit_code
        finally:
            await self._finish()
        return code

    def _stop_at_signals(self) -> None:
        import asyncio
        import signal

        task = asyncio.current_task()
        assert task is not None

        def stop() -> None:
            # the second Ctrl-C does not wait for the broker
            task.cancel() if self.enough.is_set() else self.enough.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop)

    async def _targets(self, node: str | None) -> list[int | None]:
        if node is None:
            return [None]
        if node != "all":
            return [await node_number(self.session, node)]
        nodes = await self.session.call("dcm", "node_ls")
        return [int(found["number"]) for found in nodes if found["state"] != "offline"]

    async def _read(self, reader: Reader) -> None:
        while not self.enough.is_set():
            await self._fetch(reader, FETCH_SECONDS)

    async def _fetch(self, reader: Reader, wait: float) -> None:
        self._take(
            reader,
            await self.session.ask("bus", "tap_next", wait + 10, node=reader.node, tap=reader.tap, wait=wait),
        )

    def _take(self, reader: Reader, answer: dict[str, Any]) -> None:
        reader.counters = answer["counters"]
        reader.received += len(answer["records"])
        for record in answer["records"]:
            if self._full():
                reader.unshown += 1
            else:
                self._show(record)
        if self._full():
            self.enough.set()
        self._say_dropped()

    def _full(self) -> bool:
        return self.count is not None and self.account.shown + self.account.undecodable >= self.count

    def _say_dropped(self) -> None:
        dropped = sum(reader.counters.get("dropped", 0) for reader in self.readers)
        if dropped > self.said_dropped:
            self.stream.remark(
                f"-- {dropped - self.said_dropped} matching messages not shown here: this reader was too slow; the "
                "bus was not slowed --"
            )
            self.said_dropped = dropped

    def _show(self, record: dict[str, Any]) -> None:
        line, sound = tap_line(record, self.payload)
        if sound:
            self.account.shown += 1
        else:
            self.account.undecodable += 1
        self.stream.line(line, tap_text(line, record["at"]))

    async def _finish(self) -> None:
        """Fetch what still waits, take the taps off and print the summary, whatever ended the run."""
        for reader in self.readers:
            try:
                await self._drain(reader)
                self._take(reader, await self.session.ask("bus", "tap_detach", 5, node=reader.node, tap=reader.tap))
            except CoveyError as problem:
                self.stream.remark(f"-- the tap at {_place(reader)} ended: {problem.message} --")
        for reader in self.readers:
            counted = reader.counters
            self.account.passed += counted.get("passed", 0)
            self.account.matched += counted.get("matched", 0)
            # what a broker handed out and this side did not get, or did not want any more, was not shown either
            lost = counted.get("fetched", 0) - reader.received
            self.account.dropped += counted.get("dropped", 0) + counted.get("waiting", 0) + lost + reader.unshown
        self.stream.line(self.account.line(), self.account.text())

    async def _drain(self, reader: Reader) -> None:
        if self.count is not None:
            return
        await self._fetch(reader, 0)
        until = reader.counters["matched"]
        while reader.received + reader.counters["dropped"] < until:
            await self._fetch(reader, 0)


def _place(reader: Reader) -> str:
    return "this node" if reader.node is None else f"node {reader.node}"


def tap_line(record: dict[str, Any], payload: bool) -> tuple[dict[str, Any], bool]:
    """Return a record as its line, and whether its body could be decoded; a body that could not is shown in hex."""
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(record["at"], UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    line = {"at": at, **{name: record[name] for name in _FIELDS}}
    if not payload or record.get("body") is None:
        return line, True
    from ..bus import codec
    from ..errors import Malformed

    try:
        line["body"] = plain(_unfolded(codec.decode_body(record["body"], record.get("compressed", False))))
    except Malformed as problem:
        line["undecodable"] = problem.message
        line["body"] = bytes(record["body"][:256]).hex(" ")
        return line, False
    return line, True


def _unfolded(body: Any) -> Any:
    """Return a body with the message that components pack into its own `body` unpacked too, if it is one."""
    if not (isinstance(body, dict) and isinstance(body.get("body"), bytes)):
        return body
    from ..bus import codec
    from ..errors import Malformed

    try:
        inner = codec.decode_body(body["body"])
    except Malformed:
        return body
    return {**body, "body": inner} if isinstance(inner, (dict, list)) else body


_FIELDS = ("node", "direction", "kind", "source", "destination", "topic", "id", "cause", "size")


def tap_text(line: dict[str, Any], at: float) -> str:
    """Return a line for a person: time, kind, who to whom, what, how large."""
    from datetime import datetime

    clock = datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S.%f")[:-3]
    way = line["source"] + (f" > {line['destination']}" if line["destination"] else "")
    mark = "???" if "undecodable" in line else _SHORT.get(line["kind"], line["kind"])
    text = f"{clock} n{line['node']} {line['direction']:<3} {mark}  {way}  {line['topic']}  {line['size']} B"
    if line["kind"] in ("request", "reply", "error"):
        text += f"  id {line['id']}"
    text += f"  cause {line['cause']}" if line["cause"] else ""
    if "body" in line:
        text += (
            f"\n    {line['undecodable']}; raw: {line['body']}"
            if "undecodable" in line
            else f"\n    {cell(line['body'])}"
        )
    return text

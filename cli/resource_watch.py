"""`covey resource watch`: the changes that each node tells of its own resources, as one stream.

Knows the verb `watch_local` of every node's Resource Manager. One long poll is open at each node that has the class, so
only what matches travels; nodes that come later are looked for now and then. What a node told while nobody asked it (a
restart, a reader that is too slow) is said to be missed, never left out in silence. Odd: lines are in the order of
their arrival here; there is no order between nodes.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from ..errors import BadExpression, CoveyError
from .connection import Session
from .output import Stream, cell

WATCH_SECONDS = 10.0
"""How long a question may wait for a change; also how often new nodes are looked for."""

PAUSE = 1.0
"""Seconds before a node that did not answer is asked again."""


class Watch:
    """One run of the command."""

    def __init__(self, session: Session, stream: Stream, cls: str, select: str, count: int | None) -> None:
        self.session = session
        self.stream = stream
        self.asked = {"cls": cls, **({"select": select} if select else {})}
        self.left = count
        self.ended = asyncio.Event()
        self.problem: CoveyError | None = None
        self.heard = asyncio.get_running_loop().time()

    async def run(self) -> int:
        """Print changes until there are enough; raises ResourceNotFound, BadExpression, and what ends every answer."""
        await self.session.call("resources", "watch", **self.asked, wait=0.0)  # refuses what makes no sense
        tasks: dict[int, asyncio.Task[None]] = {}
        try:
            while not self.ended.is_set():
                for node in await self._nodes(sorted(tasks)):
                    if node not in tasks:
                        tasks[node] = asyncio.create_task(self._follow(node))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.ended.wait(), WATCH_SECONDS)
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        if self.problem is not None:
            raise self.problem
        return 0

    async def _nodes(self, known: list[int]) -> list[int]:
        """Return the nodes that have the class; those known before where that cannot be told just now."""
        try:
            found = await self.session.ask("resources", "class", WATCH_SECONDS, cls=self.asked["cls"])
            return list(found["nodes"])
        except CoveyError:
            if not known:
                raise
            return known

    async def _follow(self, node: int) -> None:
        """Print what one node tells, through its restarts."""
        cursor: dict[str, Any] = {}
        lost = False
        while not self.ended.is_set():
            try:
                found = await self.session.ask(
                    "resources", "watch_local", 2 * WATCH_SECONDS, node=node, **self.asked, **cursor, wait=WATCH_SECONDS
                )
            except BadExpression as problem:
                said = problem.message.partition("\n")[0]
                self.stream.remark(f"-- node {node} is left out, its {self.asked['cls']} is another one: {said} --")
                return
            except CoveyError as problem:
                if not lost:
                    self.stream.remark(f"-- node {node}: {problem.message}; trying again --")
                lost = True
                self._lost(problem)
                await asyncio.sleep(PAUSE)
                continue
            lost = False
            self.heard = asyncio.get_running_loop().time()
            if found["missed"]:
                self.stream.remark(f"-- node {node}: at least {found['missed']} changes were missed --")
            cursor = {"token": found["token"], "since": found["to"]}
            for event in found["events"]:
                self._print(event)

    def _lost(self, problem: CoveyError) -> None:
        """Give up when nobody has answered for longer than the command's timeout."""
        if asyncio.get_running_loop().time() - self.heard > WATCH_SECONDS + self.session.timeout:
            self.problem = problem
            self.ended.set()

    def _print(self, event: dict[str, Any]) -> None:
        if self.ended.is_set():
            return
        shown = {name: event["attributes"].get(name) for name in event["changed"]}
        place = f"{event['class']}/{cell(event['key'])}@{event['node']}"
        self.stream.line(event, f"{event['type']:<8} {place}" + (f"  {cell(shown)}" if shown else ""))
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                self.ended.set()

"""Elect a leader: who has been in the group longest leads; when it dies or leaves, the next one does, at once.

Run it several times, on any nodes of a cluster, and end one of them: python leader_election.py [GROUP]
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

import covey


async def main(name: str) -> None:
    async with covey.connect() as bus, bus.group(name) as group:  # the node of COVEY_STATE
        leader = None
        async for event in group:
            if group.me is None:  # the others decided so, or took this one for dead
                print(f"{event.kind}: {event.body or 'no reason given'}", flush=True)
            elif event.kind == "frozen":  # the others may elect another one: stop acting as the leader
                leader = None
                print("cut off", flush=True)
            elif event.members and event.members[0] != leader:  # members are in the order in which they joined
                leader = event.members[0]
                print("I lead" if leader == group.me else f"{leader.member}@{leader.node} leads", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C: the group has been left
        try:
            asyncio.run(main(*(sys.argv[1:] or ["example.leader"])))
        except covey.CoveyError as problem:
            sys.exit(f"{problem}")

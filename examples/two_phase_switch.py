"""Switch a setting on all members or on none: all prepare, and only when all have, all switch.

Members: python two_phase_switch.py. The switch: python two_phase_switch.py SETTING. A member that cannot prepare (here:
any setting that is no number) rejects it, and nobody switches; the same if one does not answer in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

import covey

GROUP = "example.switch"


async def member() -> None:
    async with covey.connect() as bus, bus.group(GROUP) as group:

        @group.vote
        async def judge(proposal: covey.GroupProposal) -> str | tuple[str, str]:
            if proposal.phase == 1:  # do here what may fail, so that what is left to do cannot
                if not str(proposal.body).isdigit():
                    return "reject", f"{proposal.body} is no number"
                print(f"prepared for {proposal.body}", flush=True)
                return "continue"
            return "approve"  # all have prepared

        print("ready", flush=True)
        async for event in group:
            if event.kind == "decided":
                print(f"switched to {event.body}", flush=True)
            elif event.kind == "rejected":
                print(f"stayed: {event.body} was rejected", flush=True)


async def switch(setting: str) -> None:
    async with covey.connect() as bus:
        try:
            terms = {"phases": 2, "default": "reject", "deadline": 5.0}
            await bus.call("groups", "propose", group=GROUP, body=setting, outside=True, timeout=20.0, **terms)
            print(f"all switched to {setting}")
        except covey.Rejected as problem:
            print(f"nobody switched: {problem.message}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C: the group has been left
        try:
            asyncio.run(switch(sys.argv[1]) if sys.argv[1:] else member())
        except covey.CoveyError as problem:
            sys.exit(f"{problem}")

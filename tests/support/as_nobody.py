"""Use a node's bus as another local user. Run as root: `as_nobody.py STATE UID SERVICE VERB [ARGUMENTS] …` in JSON.

The connection is made once before the change of user, since libraries may lie where the other user cannot read them.
Prints one line of JSON for each call: the result, or the error's code.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from covey import errors
from covey.bus.client import connect


async def calls(state: str, wanted: list[tuple[str, str, dict[str, Any]]]) -> None:
    async with connect(state) as bus:
        for service, verb, arguments in wanted:
            try:
                found = {"result": await bus.call(service, verb, timeout=10, **arguments)}
            except errors.CoveyError as problem:
                found = {"error": problem.code, "message": problem.message}
            print(json.dumps(found, default=repr), flush=True)


def main() -> None:
    state, uid, *words = sys.argv[1:]
    wanted = [(words[i], words[i + 1], json.loads(words[i + 2])) for i in range(0, len(words), 3)]
    asyncio.run(calls(state, [("bus", "ping", {}), ("bus", "no-such-verb", {})]))
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
    asyncio.run(calls(state, wanted))


if __name__ == "__main__":
    main()

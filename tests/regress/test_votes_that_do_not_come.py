"""A vote function that hung once, or raised CancelledError, kept its member from every later vote.

And why it voted so, when that was no Unicode text, could not be sent: the function was asked again and again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from covey.components.groups.client import Group, GroupProposal
from real_nodes import story

WHO = {"node": 1, "boot_id": "b", "member": "client-1", "joined": 1}
ASKED = {"op": "message", "body": "x", "proposer": WHO, "target": None, "phase": 1, "phases": 1, "deadline": 0.01}


async def hangs(proposal: GroupProposal) -> str:
    await asyncio.Event().wait()
    return "approve"


async def cancels(proposal: GroupProposal) -> str:
    raise asyncio.CancelledError


def surrogate(proposal: GroupProposal) -> Any:
    return "approve", "\udcff"


@story
async def test_the_default_counts_and_the_member_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    group: Any = Group(None, "db")  # type: ignore[arg-type]
    for judge, vote, why in (
        (hangs, None, "TimeoutError: "),
        (cancels, None, "CancelledError: "),
        (surrogate, "approve", "\\udcff"),
    ):
        group._judge = judge
        assert await group._judged(ASKED) == (vote, why)

    group._judge = hangs
    voting = asyncio.ensure_future(group._judged({**ASKED, "deadline": 60.0}))
    await asyncio.sleep(0)
    voting.cancel()  # the member leaves
    with pytest.raises(asyncio.CancelledError):
        await voting

"""Waiting until something is so: `--wait` of long operations, and `covey cluster wait-for`.

Knows how to ask again and when to stop; what is asked and what is hoped for come from the verb. Progress goes to
standard error, one line for each change, so that the answer on standard output stays what it is.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import click

from ..errors import ConnectionLost, CoveyError, NoDaemon, NoQuorum, NoService, NotOnline, ServiceDied, Timeout
from .connection import Session
from .output import note

PAUSE_SECONDS = 0.2
"""Between two questions. An answer costs a node well under a millisecond, and a person sees no delay."""

PASSING: tuple[type[CoveyError], ...] = (ConnectionLost, NoDaemon, NoQuorum, NoService, NotOnline, ServiceDied)
"""What may be over at the next try: something is just starting, restarting or electing."""

GONE_SECONDS = 10.0
"""How long this node's own daemon may be away, restarting say, before waiting for what it could tell is over."""


async def until(
    session: Session,
    ask: Callable[[], Awaitable[Any]],
    state: Callable[[Any], str],
    wanted: Callable[[Any], bool],
    what: str,
    report: Callable[[str], None] | None = None,
) -> Any:
    """Ask until `wanted` holds and return that answer; raises Timeout that says what was seen last, and NoDaemon when
    this node's daemon went away and did not come back.

    `state` puts an answer into a few words; each new one goes to `report`, by default to a person who watches.
    """
    import asyncio

    last = ""
    here_at = session.left
    while True:
        try:
            data = await ask()
            seen = state(data)
            if wanted(data):
                return data
            here_at = session.left
        except PASSING as problem:
            seen = problem.message
            if not isinstance(problem, ConnectionLost | NoDaemon):
                here_at = session.left
            elif session.left < here_at - GONE_SECONDS:
                raise NoDaemon(
                    f"this node's daemon went away during the wait for {what}: {problem.message}",
                    "it may still happen; start the daemon, and ask again",
                ) from None
        if seen != last:
            last = seen
            if report is not None:
                report(seen)
            elif sys.stderr.isatty():
                note(f"… {seen}")
        if session.left <= PAUSE_SECONDS:
            raise Timeout(
                f"waited {session.timeout:g} s for {what}, and last saw: {seen}",
                "it may still happen; --timeout waits longer",
            )
        await asyncio.sleep(PAUSE_SECONDS)


def wait_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--wait/--no-wait`: by default a person on a terminal waits and a script does not."""
    return click.option(
        "--wait/--no-wait",
        default=None,
        help="Return when it is done, not when it is accepted (the default on a terminal).",
    )(function)


def waits(said: bool | None) -> bool:
    """Say whether to wait, given what was said."""
    return sys.stdout.isatty() if said is None else said


def confirm(question: str, yes: bool) -> None:
    """Ask before something that cannot be undone; without a terminal only `--yes` will do."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to ask at: say --yes.", click.get_current_context())
    click.confirm(question, abort=True, err=True)


def yes_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--yes`, for operations that ask."""
    return click.option("--yes", is_flag=True, help="Do not ask.")(function)

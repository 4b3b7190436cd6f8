"""`covey plugin`: what is installed, whether it runs, and why not."""

from __future__ import annotations

from typing import Any

import click

from .connection import Session, answer
from .output import Block, Fields, Table
from .verbs import Noun

command = Noun(
    "plugin",
    help="Everything that does something in covey is a plugin: components, controllers, identity sources. One that "
    "fails to import, raises, hangs or reuses a name is kept apart, and is listed with the reason.",
)


@command.verb("ls", examples=["covey plugin ls", "covey plugin ls -o json"])
def ls() -> int:
    """List the plugins of this node with their state.

    running, blocked (somebody said so), failed, shadowed (another one has the name), incompatible. `covey plugin why
    NAME` tells the whole story of one.
    """

    def text(data: list[dict[str, Any]]) -> list[Block]:
        columns = ("name", "package", "version", "state", "classes", "reason")
        return [Table(columns, [tuple(found.get(column) for column in columns) for found in data], "no plugins")]

    return answer(lambda session: session.call("dcm", "plugins"), text)


@command.verb("why", examples=["covey plugin why filesystem"])
@click.argument("name")
def why(name: str) -> int:
    """Tell why a plugin is in its state: where it was found, what was tried, what went wrong, what to do."""

    def ask(session: Session) -> Any:
        return session.call("dcm", "plugin_why", name=name)

    return answer(ask, _story)


@command.verb("block", examples=["covey plugin block gpu --reason 'hangs since 2.1, see ticket 812'"])
@click.argument("name")
@click.option("--reason", required=True, metavar="TEXT", help="Why; whoever finds it blocked reads this.")
def block(name: str, reason: str) -> int:
    """Keep a controller from running on this node, from now on and after restarts, too.

    Its resources stay listed as they were last seen. `covey plugin unblock NAME` lets it run again.
    """

    def ask(session: Session) -> Any:
        return session.call("dcm", "plugin_block", name=name, reason=reason)

    return answer(ask, lambda data: [f"{name} is blocked: {data['reason']}"])


@command.verb("unblock", examples=["covey plugin unblock gpu"])
@click.argument("name")
def unblock(name: str) -> int:
    """Let a blocked controller run again."""

    def ask(session: Session) -> Any:
        return session.call("dcm", "plugin_unblock", name=name)

    return answer(ask, lambda data: [f"{name} may run again"])


def _story(data: Any) -> list[Block]:
    if isinstance(data, dict):
        story = data.get("story") or data.get("lines")
        pairs = Fields([(name, value) for name, value in data.items() if name not in ("story", "lines")])
        return [pairs, "", *(str(line) for line in story)] if story else [pairs]
    return [str(line) for line in data] if isinstance(data, list) else [str(data)]

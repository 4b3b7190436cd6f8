"""The verbs and options that are specified and not built yet: one table, so that `--help` can say so.

Each answers with the error `core.not_implemented`, which names the point of the specification. A verb that gets built
leaves this table in the same change; a test holds that none is in both places. Knows nothing of any component.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import click

from ..errors import NotImplementedYet

MARK = "(not built yet)"
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Unbuilt:
    """One verb to come: its arguments, what it will do, and the point of the specification that says so."""

    arguments: str
    summary: str
    spec: str


# noun → verb → what it will be; a verb without a noun stands under ""
VERBS: dict[str, dict[str, Unbuilt]] = {
    "lab": {
        "clone": Unbuilt("N", "Start a copy of a node's disk on a second machine.", "5.5"),
        "swap-disk": Unbuilt("A B", "Exchange the state folders of two nodes.", "5.5"),
        "run": Unbuilt("SCENARIO.yaml", "Play a scenario and check what it expects.", "14.2"),
    },
    "node": {
        "install": Unbuilt("FILE", "Write a systemd unit that starts this node.", "14.1"),
    },
    "condition": {
        "define": Unbuilt("FILE", "Define conditions and responses from a file.", "12.3"),
        "undefine": Unbuilt("NAME", "Remove a condition.", "12.3"),
        "ls": Unbuilt("", "List conditions.", "12.3"),
        "show": Unbuilt("NAME", "Show a condition and what it last did.", "12.3"),
        "test": Unbuilt("NAME", "Show what a condition would do with present values.", "12.3"),
    },
    "response": {
        "define": Unbuilt("FILE", "Define conditions and responses from a file.", "12.3"),
        "undefine": Unbuilt("NAME", "Remove a response.", "12.3"),
        "ls": Unbuilt("", "List responses.", "12.3"),
        "show": Unbuilt("NAME", "Show a response and when it last ran.", "12.3"),
        "test": Unbuilt("NAME", "Run a response once with made-up values.", "12.3"),
    },
    "plugin": {
        "new": Unbuilt("controller NAME --class CLASS", "Write a new controller package.", "12.6"),
        "check": Unbuilt("[DIR]", "Check a controller package, with every finding at once.", "12.6"),
        "test": Unbuilt("[DIR]", "Run a package's contract tests.", "12.6"),
        "docs": Unbuilt("[DIR]", "Write a package's documentation from its descriptions.", "12.6"),
    },
    "log": {
        "show": Unbuilt("", "Show the logs of a node's components.", "3.1"),
    },
    "": {
        "top": Unbuilt("", "A live screen of nodes, resources and traffic.", "13.4"),
        "reload": Unbuilt("", "Make a node read its YAML file again.", "14.1"),
    },
}

# the verbs of `tap` stand where its filter does
TAP: dict[str, Unbuilt] = {
    "read": Unbuilt("FILE", "Show a recording.", "13.4"),
    "play": Unbuilt("FILE [--into NODE]", "Replay a recording.", "13.4"),
    "snap": Unbuilt("[--last 5m]", "Write what the flight recorder holds.", "13.4"),
    "hist": Unbuilt("", "Latency histograms by topic.", "13.4"),
}

# nouns of which nothing is built
SUMMARIES = {
    "condition": "Conditions over resources' attributes.",
    "response": "What is done when a condition fires.",
}


def refuse(what: str, spec: str) -> NoReturn:
    """Raise the error that names what is missing and the point of the specification."""
    raise NotImplementedYet(f"`{what}` is not built yet (SPEC {spec})", "nothing was done")


def unbuilt_option(*declarations: str, spec: str, summary: str, **attributes: Any) -> Callable[[F], F]:
    """Return a decorator for an option that is specified and not built: shown in `--help`, refused when used."""

    def refused(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value not in (None, False):
            refuse(f"{context.command_path} {parameter.opts[0]}", spec)

    return click.option(*declarations, expose_value=False, callback=refused, help=f"{summary} {MARK}", **attributes)

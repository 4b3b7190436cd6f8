"""What a person says on every command: output form, state folder, timeout, cluster.

Knows nothing of any verb. Each of these options is a parameter of the root, of every noun and of every verb, because
people type them in all three places; the innermost one said wins. A callback puts it into the one `Settings` of the
run, which verbs read through `settings()`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..config.measures import SECONDS

if TYPE_CHECKING:
    Converter = click.ParamType[Any]
else:
    Converter = click.ParamType  # older releases of click cannot be subscripted

DEFAULT_STATE = "/var/lib/covey"
FORMS = ("table", "json", "yaml")
_UNITS = {"us": 1e-6, **SECONDS}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([a-z]*)")


@dataclass
class Settings:
    """What was said on the command line, or None where nothing was."""

    output: str | None = None
    state: str | None = None
    timeout: float | None = None
    cluster: str | None = None

    @property
    def folder(self) -> Path:
        """The state folder of the node to talk through."""
        return Path(self.state or os.environ.get("COVEY_STATE") or DEFAULT_STATE)

    def seconds(self, default: float = 10.0) -> float:
        """The timeout in seconds; a verb that takes longer by nature gives its own default."""
        return default if self.timeout is None else self.timeout


class Duration(Converter):
    """A time with its unit, as seconds: `500ms`, `10s`, `2m`, `1h`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = _DURATION.fullmatch(str(value).strip())
        if found is None or (found[2] and found[2] not in _UNITS):
            self.fail(f"{value!r} is not a duration: write a number and one of {', '.join(_UNITS)}", param, ctx)
        if not found[2]:
            self.fail(f"{value!r} has no unit: write {value}s or {value}ms", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


DURATION = Duration()


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and parameter.name is not None:
        setattr(context.ensure_object(Settings), parameter.name, value)


def everywhere() -> list[click.Parameter]:
    """Return fresh copies of the options that every command takes."""
    return [
        Everywhere(
            ["-o", "--output", "output"], type=click.Choice(FORMS), help="How to print; streams in a pipe are NDJSON."
        ),
        Everywhere(["--state"], metavar="DIR", help=f"State folder of the local node [COVEY_STATE, {DEFAULT_STATE}]."),
        Everywhere(["--timeout"], type=DURATION, metavar="TIME", help="How long to wait for answers, like 10s."),
        Everywhere(["--cluster"], metavar="ID", help="Refuse to speak with any other cluster (name or id)."),
    ]


class Everywhere(click.Option):
    """One of the options of every command: kept apart in `--help`, remembered and not handed to the function."""

    def __init__(self, declarations: Sequence[str], **attributes: Any) -> None:
        super().__init__(declarations, expose_value=False, callback=_remember, is_eager=True, **attributes)


def settings() -> Settings:
    """Return what was said for the command that is running."""
    return click.get_current_context().ensure_object(Settings)


def wants_json(arguments: Sequence[str]) -> bool:
    """Say whether `-o json` is among the arguments: for errors found before the command line was understood."""
    form = ""
    words = iter(arguments)
    for word in words:
        if word == "--":
            break
        if word in ("-o", "--output"):
            form = next(words, "")
        elif word.startswith("--output="):
            form = word.removeprefix("--output=")
        elif word.startswith("-o"):
            form = word.removeprefix("-o").removeprefix("=")
    return form == "json"

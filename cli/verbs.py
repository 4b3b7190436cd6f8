"""The frame of every command: a noun is a group of verbs, a verb a click command with examples and common options.

Knows click and the table of what is not built; nothing of the bus. A noun's file makes one `Noun` and hangs its verbs
on it with `@noun.verb(…)`; a verb without a noun is made with `@alone(…)`. The noun adds the verbs of `unbuilt.py` by
itself, so that help lists them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from .options import Everywhere, everywhere
from .unbuilt import MARK, VERBS, Unbuilt, refuse

Function = Callable[..., Any]


class Verb(click.Command):
    """A command that does something. `examples` are whole command lines, shown last in its help."""

    def __init__(
        self, name: str | None, *, examples: Iterable[str] = (), built: bool = True, **attributes: Any
    ) -> None:
        super().__init__(name, **attributes)
        self.examples = list(examples)
        self.built = built
        self.params.extend(everywhere())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                (common if isinstance(parameter, Everywhere) else own).append(record)
        for title, records in (("Options", own), ("Options of every command", common)):
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Example" if len(self.examples) == 1 else "Examples"):
            for example in self.examples:
                formatter.write_text(example)


class Noun(click.Group):
    """A group of verbs: those hung on it here and those that are not built yet."""

    def __init__(self, name: str, **attributes: Any) -> None:
        super().__init__(name, no_args_is_help=True, **attributes)
        self.params.extend(everywhere())
        for verb, found in VERBS.get(name, {}).items():
            self.add_command(not_built(f"{name} {verb}", found))

    def verb(self, name: str, *, examples: Iterable[str]) -> Callable[[Function], Verb]:
        """Return a decorator that makes a function a verb of this noun; its docstring is the help text."""

        def hang(function: Function) -> Verb:
            made = alone(name, examples=examples)(function)
            self.add_command(made)
            return made

        return hang

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list_verbs(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, summary(self.commands[name])) for name in self.list_commands(ctx)])
        formatter.write_paragraph()
        formatter.write_text(f"`{ctx.command_path} VERB --help` explains one verb, with an example.")

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            fail_unknown(ctx, "verb", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


def alone(name: str, *, examples: Iterable[str], **attributes: Any) -> Callable[[Function], Verb]:
    """Return a decorator that makes a function a verb without a noun."""

    def make(function: Function) -> Verb:
        return click.command(name, cls=Verb, examples=examples, **attributes)(function)

    return make


def not_built(path: str, found: Unbuilt) -> Verb:
    """Make the verb `covey PATH` that only says that it is not built, whatever arguments it gets."""

    def answer() -> None:
        refuse(f"covey {path}", found.spec)

    return Verb(
        path.rpartition(" ")[2],
        callback=answer,
        built=False,
        help=f"{found.summary}\n\nThis is specified (SPEC {found.spec}) and not built yet: it answers with the error "
        "core.not_implemented, exit code 1, and does nothing.",
        short_help=f"{found.summary} {MARK}",
        options_metavar=found.arguments,
        examples=[f"covey {path} {found.arguments}".rstrip()],
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


def summary(command: click.Command) -> str:
    """Return the first paragraph of a command's help, on one line."""
    return " ".join((command.short_help or command.help or "").split("\n\n")[0].split())


def list_verbs(commands: Mapping[str, click.Command]) -> list[str]:
    """Return the names: what is built first, each half in the order of the alphabet."""
    return sorted(commands, key=lambda name: (not getattr(commands[name], "built", True), name))


def fail_unknown(context: click.Context, kind: str, word: str, known: Iterable[str]) -> None:
    """Raise a usage error for a word that is not known, with the nearest ones."""
    near = difflib.get_close_matches(word, list(known), n=3)
    guess = f" Did you mean {' or '.join(near)}?" if near else ""
    raise click.UsageError(f"there is no {kind} {word!r} in `{context.command_path}`.{guess}", ctx=context)

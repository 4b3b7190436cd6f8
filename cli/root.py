"""`covey` itself: the table of nouns, loaded when named, and what a user sees when something fails.

Knows no verb. A noun's module is imported only when that noun is used, so that start-up stays quick; `root.main` is
the one place where exceptions become text and exit codes, for the script and for tests alike.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import click

from ..errors import CoveyError, InternalError, UsageError
from .options import everywhere, wants_json
from .unbuilt import MARK, SUMMARIES, VERBS
from .verbs import Noun, fail_unknown, not_built

# name → (module beside this one, summary); the module's `command` is what `covey NAME` runs
COMMANDS: dict[str, tuple[str, str]] = {
    "lab": ("lab.commands", "A whole cluster on this machine, to try things on."),
    "node": ("node", "Nodes: start this one, define others, see how they are."),
    "cluster": ("cluster", "The cluster: define it, see its state, wait for it."),
    "registry": ("registry", "The replicated store of the cluster's configuration."),
    "resource": ("resource", "What controllers found on the nodes: hosts, disks, adapters, …"),
    "group": ("group", "Groups of processes, their members and state."),
    "liveness": ("liveness", "Who is alive: the view that all members agree on."),
    "network": ("network", "Networks: which services prefer, or never use, which one."),
    "subnet": ("subnet", "Subnetworks and the network each belongs to."),
    "address": ("address", "Addresses of nodes."),
    "plugin": ("plugin", "Installed components and controllers, and why one does not run."),
    "config": ("config", "Check and show a node's YAML file."),
    "log": ("log", "The audit log: who asked for what, and how it ended."),
    "bus": ("bus", "The node's broker: links, queues and counters."),
    "components": ("components", "The components and what each needs of the others."),
    "ping": ("ping", "Measure the way to a service of any node."),
    "tap": ("tap", "See the messages that pass a node's broker."),
    "doctor": ("doctor", "Look for what is wrong, on this node and in its cluster."),
    "explain": ("explain", "Explain an error code or an exit code."),
    "version": ("version", "Print the versions of covey and what it runs on."),
}


class _ReaderGone(Exception):
    """Nobody reads what a command prints any more."""


class Root(click.Group):
    """The group of all nouns, which loads each on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *SUMMARIES, *VERBS[""]]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = importlib.import_module(f".{COMMANDS[cmd_name][0]}", __package__)
            command = module.command
            assert isinstance(command, click.Command)
            return command
        if cmd_name in SUMMARIES:
            return Noun(cmd_name, help=f"{SUMMARIES[cmd_name]} {MARK}")
        if cmd_name in VERBS[""]:
            return not_built(cmd_name, VERBS[""][cmd_name])
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        later = [(name, summary) for name, summary in SUMMARIES.items()]
        later += [(name, found.summary) for name, found in VERBS[""].items()]
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])
        with formatter.section("To come"):
            formatter.write_dl([(name, f"{summary} {MARK}") for name, summary in later])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            fail_unknown(ctx, "noun", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click itself would make it exit code 1
            raise _ReaderGone from error
        except KeyboardInterrupt:  # click itself would print an empty line
            raise click.Abort from None

    def main(  # type: ignore[override]  # it always ends the process
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run a command line and exit; every exception becomes a message and an exit code here."""
        words = list(sys.argv[1:] if args is None else args)
        extra.pop("standalone_mode", None)
        _need_output()
        try:
            result = super().main(words, prog_name or "covey", standalone_mode=False, **extra)
            sys.stdout.flush()
            code = result if isinstance(result, int) else 0
        except (_ReaderGone, BrokenPipeError):
            _forget_output()
            code = 141
        except (KeyboardInterrupt, click.Abort):
            code = 130
        except Exception as error:
            try:
                code = _report(error, words)
                sys.stdout.flush()
            except OSError:  # nobody can be told: a full disk behind standard output, say
                _forget_output()
                code = 1
        sys.exit(code)


def _need_output() -> None:
    """Give a process that was started with closed standard streams somewhere to write, and let no text fail there."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115 (it stays open)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115 (it stays open)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what the locale's characters cannot say is printed as an escape
            stream.reconfigure(errors="backslashreplace")


def _forget_output() -> None:
    """Send what is still buffered nowhere: the reader has gone, and a second try at exit would complain."""
    with suppress(OSError):
        output = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, output)
        os.close(nowhere)


def _report(error: Exception, words: Sequence[str]) -> int:
    from .output import print_error

    if os.environ.get("COVEY_DEBUG") == "1" and not isinstance(error, click.ClickException):
        import traceback

        traceback.print_exc()
    if isinstance(error, click.UsageError) and type(error).__name__ == "NoArgsIsHelpError":  # older clicks lack it
        click.echo(error.format_message(), err=True)  # nothing was asked: the help says what could be
        return UsageError.exit_code
    known = _known(error)
    print_error(known, as_json=wants_json(words))
    return known.exit_code


def _known(error: Exception) -> CoveyError:
    if isinstance(error, CoveyError):
        return error
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        hint = f"`{context.command_path} --help` shows the right form" if context else "see `covey --help`"
        if isinstance(error, click.NoSuchOption) and error.option_name[1:2].isdigit():
            hint += "; a value that begins with a dash goes behind `--`"
        return UsageError(error.format_message(), hint)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return CoveyError(f"{where}{error.strerror}" if error.strerror else str(error))
    return InternalError(
        f"covey met a bug of its own: {type(error).__name__}: {error}",
        "COVEY_DEBUG=1 shows where; the node's log (what its daemon printed, DIR/n<k>.log in a lab) may say more",
    )


def _command(name: str, **attributes: Any) -> Root:
    made = Root(name, no_args_is_help=True, **attributes)
    made.params.extend([_version_option(), *everywhere()])
    return made


def _version_option() -> click.Option:
    def show(context: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted:
            from importlib import metadata

            click.echo(f"covey {metadata.version('covey')}")
            context.exit()

    return click.Option(
        ["-V", "--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Show covey's version and exit; `covey version` names the libraries too.",
    )


root = _command(
    "covey",
    help="Clusters of machines: membership, a replicated registry, groups and resource controllers over one bus.\n\n"
    "Every command talks through the node whose state folder is given by --state or COVEY_STATE. Try "
    "`covey lab up --nodes 3 --detach` for a whole cluster on this machine, then `covey --state covey-lab/n1 cluster "
    "status`. The options below may stand anywhere on the command line.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

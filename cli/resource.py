"""`covey resource`: what the controllers of all nodes found, by class."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import click

from ..errors import CoveyError, UsageError
from .connection import Session, answer, run
from .names import must_exist, node_number
from .options import settings
from .output import Block, Fields, Stream, Table, cell
from .quantities import human, span
from .verbs import Noun
from .waiting import confirm, yes_option

command = Noun(
    "resource",
    help="Resources: what controllers found and watch, such as hosts, file systems and adapters. Each has a class, "
    "which declares its attributes, and a key, which tells it from others of its class on its node.",
)

_node_option = click.option("--node", metavar="NODE", help="On this node only, by number or name.")
_select = click.option(
    "-s", "--select", "select", metavar="EXPR", default="", help="Only those for which EXPR holds: 'PercentUsed > 90'."
)
_fresh = click.option(
    "--fresh", is_flag=True, help="Read changing attributes now, instead of showing what was read last."
)
_assignments = click.argument("values", metavar="NAME=VALUE …", nargs=-1)


@command.verb("classes", examples=["covey resource classes", "covey resource classes -o json"])
def classes() -> int:
    """List the resource classes of the cluster: version, controller, and the nodes that have it."""

    def text(data: list[dict[str, Any]]) -> list[Block]:
        columns = ("class", "version", "controller", "nodes")
        return [Table(columns, [tuple(found.get(c) for c in columns) for found in data], "no classes yet")]

    return answer(lambda session: _items(session, "classes"), text)


async def _items(session: Session, verb: str, **arguments: Any) -> Any:
    """Ask for a list; what its makers warn of (a silent node, an old copy, versions that differ) goes to the answer."""
    found = await session.call("resources", verb, **arguments)
    session.warnings += found["warnings"]
    return found["items"]


@command.verb("class", examples=["covey resource class FileSystem"])
@click.argument("name", metavar="CLASS")
def describe(name: str) -> int:
    """Show what a class declares: its attributes with type, unit and meaning, and its actions."""

    async def ask(session: Session) -> Any:
        return await session.call("resources", "class", cls=name)

    return answer(ask, _class_text)


def _class_text(data: dict[str, Any]) -> list[Block]:
    single = [(name, value) for name, value in data.items() if name not in ("attributes", "actions")]
    blocks: list[Block] = [
        Fields([(n.replace("_", " "), (span(v) if v else None) if n.endswith("_every") else v) for n, v in single])
    ]
    for part, noun in (("attributes", "attribute"), ("actions", "action")):
        found = [_plain_entry(entry) for entry in data.get(part, ())]
        if found:
            present = dict.fromkeys(["name", *(key for entry in found for key in entry)])
            columns = sorted(present, key=lambda key: key == "summary")  # the longest one last
            rows = [tuple(entry.get(column) for column in columns) for entry in found]
            blocks += ["", Table([noun, *columns[1:]], rows)]
    return blocks


def _plain_entry(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what a person reads of an attribute or an action: `list of string`, `Line: string, Times: uint32 = 1`."""
    plain = {name: value for name, value in entry.items() if name not in ("many", "has_default")}
    if "type" in entry:
        plain["type"] = f"list of {entry['type']}" if entry.get("many") else entry["type"]
    for part in ("arguments", "result"):
        if entry.get(part):
            plain[part] = ", ".join(_field_text(field) for field in entry[part])
    if "deadline" in entry:
        plain["deadline"] = span(entry["deadline"])
    return plain


def _field_text(field: dict[str, Any]) -> str:
    text = f"{field['name']}: {_plain_entry(field)['type']}" + (f" in {field['unit']}" if field.get("unit") else "")
    return f"{text} = {cell(field.get('default'))}" if field.get("has_default") else text


@command.verb(
    "ls",
    examples=[
        "covey resource ls Host",
        "covey resource ls FileSystem --node n2 --fresh -o json",
        "covey resource ls FileSystem -s 'PercentUsed > 90 && Size < 10GiB'",
    ],
)
@click.argument("name", metavar="CLASS")
@_select
@_node_option
@_fresh
@click.option("--columns", metavar="NAME,…", help="The attributes to show in the table (default: all that fit).")
def ls(name: str, select: str, node: str | None, fresh: bool, columns: str | None) -> int:
    """List the resources of a class on all nodes, with their attributes.

    The answer is the same through every node. `age` is how long ago the changing attributes were read. Sizes and times
    are in units for people; -o json has all attributes and the plain numbers. On a terminal the columns that fit are
    shown, and the others named; --columns chooses.

    EXPR is over the attributes of the class: == != < <= > >= compare, =~ matches a shell pattern, like an SQL one, `in`
    a list; && and || join, ! turns round. A plain number is in the attribute's unit; 10GiB, 30s say theirs. Each node
    judges its own resources. What is not known neither matches nor matches a negation.
    """
    declared: dict[str, Declared] = {}

    async def ask(session: Session) -> Any:
        number = await node_number(session, node) if node else None
        declared.update(await _declared(session, name))
        selected = {"select": select} if select else {}
        found = await _items(session, "ls", cls=name, of_node=number, fresh=fresh, **selected)
        if not found and number is not None:
            await must_exist(session, number)
        return found

    return answer(ask, lambda data: _list(data, declared, columns))


Declared = dict[str, Any]
"""What a class says of one attribute: its type, kind and unit."""


async def _declared(session: Session, name: str) -> dict[str, Declared]:
    """Return a class's attributes by name, for tables only; without them values are shown plainly."""
    if session.said.output in ("json", "yaml"):
        return {}
    try:
        found = await session.call("resources", "class", cls=name)
    except CoveyError:
        return {}
    return {entry["name"]: entry for entry in found["attributes"]}


def _shown(name: str, value: Any, declared: dict[str, Declared]) -> Any:
    about = declared.get(name, {})
    return human(value, about.get("unit"), about.get("type"))


def _list(data: list[dict[str, Any]], declared: dict[str, Declared], wanted: str | None) -> list[Block]:
    keys = list(dict.fromkeys(name for found in data for name in found["key"]))
    names = list(dict.fromkeys(name for found in data for name in found["attributes"] if name not in keys))
    if wanted is not None and data:
        names = _chosen(wanted, [*names, *keys], keys)
    rows = []
    for found in data:
        values = {**found["attributes"], **found["key"]}
        age = found.get("age_s")
        shown = [_shown(name, values.get(name), declared) for name in (*keys, *names)]
        rows.append((found["node"], *shown, None if age is None else f"{age:.0f}s"))
    columns = ["node", *keys, *names, "age"]
    first = 1 + len(keys)
    fit = [first + names.index(name) for name in _by_interest(names, declared)] + [len(columns) - 1]
    more = "--columns NAME,… shows them, `covey resource show` everything of one"
    fit = fit if wanted is None else []
    return [Table(columns, rows, "no resources of this class", literal=True, fit=fit, more=more)]


def _chosen(wanted: str, known: list[str], keys: list[str]) -> list[str]:
    """Return the names of `--columns` that are not in the key, which is always shown; raises UsageError."""
    chosen = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in chosen:
        if name not in known:
            raise UsageError(f"there is no attribute {name!r}", f"there are: {', '.join(known)}")
    return [name for name in dict.fromkeys(chosen) if name not in keys]


def _by_interest(names: list[str], declared: dict[str, Declared]) -> list[str]:
    """Return the attributes in the order in which a narrow table takes them: what it is and how it is, by turns."""
    lasting = [name for name in names if declared.get(name, {}).get("kind") != "dynamic"]
    changing = [name for name in names if name not in lasting]
    turns = zip_longest(lasting, changing)
    return [name for turn in turns for name in turn if name is not None]


@command.verb(
    "show",
    examples=["covey resource show FileSystem /var --node n1", "covey resource show Host n2 --fresh -o json"],
)
@click.argument("name", metavar="CLASS")
@click.argument("key")
@_node_option
@_fresh
def show(name: str, key: str, node: str | None, fresh: bool) -> int:
    """Show one resource with all its attributes.

    KEY is the value of its key attribute, or NAME=VALUE,… when the class has several, or its id. When several nodes
    have such a resource, --node says which is meant.
    """
    declared: dict[str, Declared] = {}

    async def ask(session: Session) -> Any:
        number = await node_number(session, node) if node else None
        declared.update(await _declared(session, name))
        found = await session.call("resources", "show", cls=name, key=key, of_node=number, fresh=fresh)
        session.warnings += found.pop("warnings")
        return found

    return answer(ask, lambda data: _one(data, declared))


def _one(data: dict[str, Any], declared: dict[str, Declared]) -> list[Block]:
    head = [(name, data.get(name)) for name in ("class", "id", "node", "key")]
    age = data.get("age_s")
    if age is not None:
        head.append(("age", f"{age:.0f}s"))
    if data.get("gone"):
        head.append(("gone since", data.get("since")))
    return [Fields(head), "", Fields([(name, _shown(name, v, declared)) for name, v in data["attributes"].items()])]


@command.verb(
    "set",
    examples=[
        "covey resource set GpuDevice 0 PowerLimit=180 --node n2",
        "covey resource set Lamp desk Brightness=80% Colour=red",
    ],
)
@click.argument("name", metavar="CLASS")
@click.argument("key")
@_assignments
@_node_option
def set_attributes(name: str, key: str, values: tuple[str, ...], node: str | None) -> int:
    """Change attributes of one resource: its controller does it, and what is lasting goes into the registry.

    KEY is as for `covey resource show`. `covey resource class CLASS` shows which attributes are writable, with type and
    unit: a number may have a unit that fits (10GiB, 30s), a list is written a,b.
    """
    return _change("set", name, key, node, values=_assigned(values))


@command.verb("define", examples=["covey resource define Lamp Name=desk Brightness=80% --node n2"])
@click.argument("name", metavar="CLASS")
@_assignments
@_node_option
def define(name: str, values: tuple[str, ...], node: str | None) -> int:
    """Define a resource on a node (this one, unless --node names another), if the class's controller can.

    Its key and every attribute that the class marks as required must be given; others get their defaults.
    """
    return _change("define", name, None, node, values=_assigned(values))


@command.verb("undefine", examples=["covey resource undefine Lamp desk --yes"])
@click.argument("name", metavar="CLASS")
@click.argument("key")
@_node_option
@yes_option
def undefine(name: str, key: str, node: str | None, yes: bool) -> int:
    """Remove a resource for good, if the class's controller can. KEY is as for `covey resource show`."""
    confirm(f"Remove {name} {key}?", yes)

    def text(data: dict[str, Any]) -> list[Block]:
        return [f"{name} {cell(data['key'])} on node {data['node']}: removed"]

    return _change("undefine", name, key, node, text)


@command.verb(
    "run",
    examples=["covey resource run GpuDevice 0 Reset Hard=true --node n2", "covey resource run Lamp desk Blink -o json"],
)
@click.argument("name", metavar="CLASS")
@click.argument("key")
@click.argument("action")
@_assignments
@_node_option
def run_action(name: str, key: str, action: str, values: tuple[str, ...], node: str | None) -> int:
    """Run an action of a resource and show its result.

    KEY is as for `covey resource show`. `covey resource class CLASS` lists the actions with their arguments and their
    deadlines: an action is waited for until its own, unless --timeout is given.
    """
    arguments = _assigned(values)

    async def ask(session: Session) -> Any:
        number = await node_number(session, node) if node else None
        wait = session.said.timeout
        if wait is None:
            about = await session.ask("resources", "class", CLASS_SECONDS, cls=name)
            declared = {found["name"]: found for found in about.get("actions", ())}
            wait = declared.get(action, {}).get("deadline", DEADLINE) + CLASS_SECONDS
        given: dict[str, Any] = {"cls": name, "key": key, "action": action, "arguments": arguments, "as_text": True}
        found = await session.ask("resources", "run", wait, of_node=number, **given)
        session.warnings += found.pop("warnings")
        return found

    return answer(ask, _ran, timeout=LONGEST_ACTION)


def _ran(data: dict[str, Any]) -> list[Block]:
    said = f"{data['action']} of {data['class']} {cell(data['key'])} on node {data['node']}: done"
    return [said, *([Fields(list(data["result"].items()))] if data["result"] else [])]


CLASS_SECONDS = 10.0
"""For the description of a class, and for all the ways of an action beside its own deadline."""

DEADLINE = 30.0
"""Of an action that says none."""

LONGEST_ACTION = 86400.0 + 60.0
"""Seconds: the longest deadline that a class can declare is a day."""


def _assigned(words: tuple[str, ...]) -> dict[str, str]:
    """Return the values by name; raises UsageError for a word that is no NAME=VALUE, or a name that comes twice."""
    values: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise UsageError(f"{word!r} is not NAME=VALUE", f"write {word.strip('=') or 'NAME'}=VALUE")
        if name in values:
            raise UsageError(f"{name} is given twice", "leave one out")
        values[name] = value
    return values


def _change(
    verb: str,
    name: str,
    key: str | None,
    node: str | None,
    text: Callable[[dict[str, Any]], list[Block]] | None = None,
    **given: Any,
) -> int:
    """Have a resource changed, and show it as it is then, or what `text` says."""
    declared: dict[str, Declared] = {}
    arguments: dict[str, Any] = {"cls": name, **({} if key is None else {"key": key}), **given}
    if given:
        arguments["as_text"] = True

    async def ask(session: Session) -> Any:
        number = await node_number(session, node) if node else None
        found = await session.call("resources", verb, of_node=number, **arguments)
        declared.update(await _declared(session, name))
        session.warnings += found.pop("warnings")
        return found

    return answer(ask, text or (lambda data: _one(data, declared)), timeout=30.0)


@command.verb(
    "watch",
    examples=["covey resource watch FileSystem", "covey resource watch FileSystem -s 'Type == \"ext4\"' -o json"],
)
@click.argument("name", metavar="CLASS")
@_select
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after N lines.")
def watch(name: str, select: str, count: int | None) -> int:
    """Print changes of resources of a class as they happen, on any node, until Ctrl-C: changing attributes too.

    Each node tells what it sees: at its polls, its discoveries, and when somebody changes a resource. With EXPR (as for
    `covey resource ls`) only what matches after the change is told.
    """
    stream = Stream(settings())

    async def follow(session: Session) -> int:
        from .resource_watch import Watch

        stream.remark(f"watching {name}; Ctrl-C ends it")
        return await Watch(session, stream, name, select, count).run()

    return run(follow, endless=True)


@command.verb("refresh", examples=["covey resource refresh"])
def refresh() -> int:
    """Have the controllers of this node discover anew what they control, and wait until they have.

    It happens by itself at every join and at the intervals each class declares.
    """
    return answer(lambda session: session.call("resources", "refresh"), _refreshed, timeout=30)


def _refreshed(data: list[dict[str, Any]]) -> list[Block]:
    rows = [(found["name"], found["state"], found["reason"]) for found in data]
    return [Table(("controller", "outcome", "reason"), rows, "no controller runs here")]

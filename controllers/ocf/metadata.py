"""What an OCF agent says about itself (`meta-data`, OCF resource agent API 1.0 and 1.1), and the class made of it.

Knows no process. Parameters become attributes of the same name; what cannot be a name here is spelt with `_`. One whose
name speaks of a password or secret is sensitive. Odd: the XML comes from a program that root installed, and is still
read as a stranger's: no entity is expanded.
"""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ..commands import as_text

OWN = ("Name", "State", "ExitCode", "Reason")
"""The attributes that every class of an agent has."""

ACTIONS = {"Start": "start", "Stop": "stop", "Monitor": "monitor", "Validate": "validate-all"}
"""Our actions, and what the agents call them."""

_SUMMARIES = {
    "Start": "Start it; nothing happens when it runs.",
    "Stop": "Stop it; nothing happens when it does not run.",
    "Monitor": "Ask it now how it is.",
    "Validate": "Check its parameters.",
}
_TYPES = {"integer": "int64", "boolean": "bool"}
_TRUE, _FALSE = (
    ("yes", "true", "1", "on", "y"),
    ("no", "false", "0", "off", "n"),
)  # what ocf_is_true takes, and its opposites
_SECRET = re.compile(r"pass(w|$|_|phrase)|secret|token", re.IGNORECASE)
_UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "ms": 0.001, "msec": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0, "hr": 3600.0}
_LONGEST = 86400.0


@dataclass(frozen=True)
class Parameter:
    """One parameter: the agent's name for it, ours, its type here, and what holds when it is not given."""

    name: str
    attribute: str
    type: str
    required: bool
    default: Any
    summary: str

    @property
    def sensitive(self) -> bool:
        """Whether its name says that nobody should see it."""
        return _SECRET.search(self.name) is not None


@dataclass(frozen=True)
class Agent:
    """What one agent is: its class's name, its parameters by name, its actions with their deadlines in seconds."""

    class_name: str
    summary: str
    parameters: dict[str, Parameter]
    deadlines: dict[str, float]
    interval: float

    def described(self) -> dict[str, Any]:
        """Return the class, as a description file has it."""
        attributes: dict[str, Any] = {
            "Name": {"type": "string", "kind": "persistent", "summary": "What the YAML calls it."},
            "State": {"type": "string", "kind": "dynamic", "summary": "running, promoted, stopped or failed."},
            "ExitCode": {"type": "int32", "kind": "dynamic", "summary": "What the agent's monitor ended with."},
            "Reason": {"type": "string", "kind": "dynamic", "summary": "What it said when it failed; else null."},
        }
        for one in self.parameters.values():
            attributes[one.attribute] = {
                "type": one.type,
                "kind": "persistent",
                "required": one.required,
                "sensitive": one.sensitive,
                "summary": one.summary,
            }
        result = {"State": {"type": "string"}, "ExitCode": {"type": "int32"}}
        actions = {
            name: {
                "summary": _SUMMARIES[name],
                "deadline": f"{self.deadlines[theirs]:g}s",
                "effects": [] if name == "Validate" else ["State", "ExitCode", "Reason"],
                "result": result if name == "Monitor" else {},
            }
            for name, theirs in ACTIONS.items()
            if theirs in self.deadlines
        }
        return {
            "version": 1,
            "summary": self.summary,
            "key": ["Name"],
            "attributes": attributes,
            "actions": actions,
            "discover": {"every": "5m"},
            "poll": {"every": f"{self.interval:g}s"},
        }


def class_name(provider: str, kind: str) -> str:
    """Return the class of an agent: `OcfHeartbeatDummy` for heartbeat's Dummy."""
    words = (word for part in (provider, kind) for word in re.split(r"[^A-Za-z0-9]+", part) if word)
    return ("Ocf" + "".join(word[0].upper() + word[1:] for word in words))[:64]


def read_metadata(provider: str, kind: str, text: str) -> Agent:
    """Return what the XML of an agent says. Raises ValueError: it is none, or declares an entity."""
    root = _parse(text)
    if root.tag != "resource-agent":
        raise ValueError(f"its meta-data is a <{root.tag}>, not a <resource-agent>")
    parameters: dict[str, Parameter] = {}
    taken = set(OWN)
    for one in root.iterfind("./parameters/parameter"):
        name = one.get("name", "")
        if not name or name in parameters:
            continue
        attribute = _attribute(name)
        while attribute in taken:
            attribute += "_"
        taken.add(attribute)
        content = one.find("content")
        found = content if content is not None else Element("content")
        type_name = _TYPES.get(found.get("type", ""), "string")
        default = found.get("default")
        parameters[name] = Parameter(
            name,
            attribute,
            type_name,
            one.get("required", "0") in _TRUE,
            None if default is None else typed(default, type_name),
            _text(one.find("shortdesc")) or _text(one.find("longdesc")),
        )
    deadlines: dict[str, float] = {}
    interval = 30.0
    for one in root.iterfind("./actions/action"):
        name = one.get("name", "")
        if name not in deadlines:  # of several depths of monitor the first is the plain one
            deadlines[name] = min(max(_seconds(one.get("timeout", ""), 20.0), 1.0), _LONGEST)
            if name == "monitor":
                interval = min(max(_seconds(one.get("interval", ""), 30.0), 5.0), 3600.0)
    if "monitor" not in deadlines:
        raise ValueError("its meta-data names no action monitor")
    summary = _text(root.find("shortdesc")) or _text(root.find("longdesc")) or f"The OCF agent {kind} of {provider}."
    return Agent(class_name(provider, kind), summary, parameters, deadlines, interval)


def typed(value: Any, type_name: str) -> Any:
    """Return a parameter's value in the type of its attribute; as it is, when it is none."""
    if not isinstance(value, str):
        return as_text(value) if type_name == "string" and value is not None else value
    if type_name == "int64" and re.fullmatch(r"\s*[-+]?[0-9]{1,18}\s*", value):
        return int(value)
    if type_name == "bool":
        lower = value.strip().lower()
        return True if lower in _TRUE else False if lower in _FALSE else value
    return value


def _parse(text: str) -> Element:
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def refuse(name: str, *_: Any) -> None:
        raise ValueError(f"its meta-data declares the entity {name!r}, which is refused")

    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise ValueError(f"its meta-data is no XML: {error}") from None
    return builder.close()


def _attribute(name: str) -> str:
    found = re.sub(r"[^A-Za-z0-9_]", "_", name)[:60]
    found = found if re.match(r"[A-Za-z]", found) else f"p{found}"
    return f"{found}_" if keyword.iskeyword(found) or found in ("key", "self", "resource") else found


def _seconds(written: str, otherwise: float) -> float:
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]+)?)\s*([a-z]*)\s*", written)
    return float(match[1]) * _UNITS[match[2]] if match and match[2] in _UNITS else otherwise


def _text(found: Element | None) -> str:
    """The first sentence of a text, on one line."""
    text = " ".join("".join(found.itertext()).split()) if found is not None else ""
    return text if len(text) <= 160 else text[:159] + "…"

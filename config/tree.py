"""YAML text as a tree of values that know where they stand.

Built on PyYAML's node tree for positions, with our own rules for what is in it: YAML 1.2 core types
(`scalars`), every key is text and stands once, no explicit tags, one document, bounded size and depth.
Anchors and aliases are allowed (a finding inside an aliased value points at the anchor); merge keys (`<<`)
are not YAML 1.2 and are refused. Knows no model. Whatever the bytes are, the answer is a tree, or findings,
or both; never an exception.
Odd: a value that had a finding of its own is kept as null and marked `broken`, so nobody complains about it
again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from yaml.composer import Composer
from yaml.error import Mark, MarkedYAMLError, YAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from .findings import Finding, Place, Source, quoted
from .scalars import ScalarValue, resolve, substitute
from .syntax import in_words, problem_line

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_NODES = 50_000


class Limits(NamedTuple):
    """How much of a file is read; more is a mistake, or an attack."""

    bytes: int = MAX_BYTES
    depth: int = MAX_DEPTH
    nodes: int = MAX_NODES


LIMITS = Limits()

_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]",
)


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value: what it means, how it was written (variables replaced), where."""

    place: Place
    value: ScalarValue
    written: str = ""
    quoted: bool = False
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    place: Place
    items: list[Tree]


@dataclass(frozen=True, slots=True)
class Section:
    """Keys with their values, in file order. `incomplete`: some were dropped, each with a finding."""

    place: Place
    items: dict[str, Tree] = field(default_factory=dict)
    keys: dict[str, Place] = field(default_factory=dict)
    incomplete: bool = False


Tree = Scalar | Sequence | Section


def plain(tree: Tree) -> Any:
    """Return the values alone: dicts, lists, text, numbers, true, false, None."""
    if isinstance(tree, Section):
        return {key: plain(item) for key, item in tree.items.items()}
    if isinstance(tree, Sequence):
        return [plain(item) for item in tree.items]
    return tree.value


def parse(
    data: bytes, source: Source, env: Mapping[str, str] | None, limits: Limits = LIMITS
) -> tuple[Tree | None, list[Finding]]:
    """Read the bytes of one file. The tree is None when nothing can be said about its contents.

    `env` holds the variables for `${env:…}`; with None that is text like any other.
    """
    if len(data) > limits.bytes:
        return None, [source.finding("too_large", Place(1, 1), f"the file is larger than {limits.bytes // 1024} KiB")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = Source("", data[: error.start].decode("utf-8-sig", "replace")).lines
        place = Place(len(before), len(before[-1]) + 1)
        source.lines = Source("", data.decode("utf-8-sig", "replace")).lines
        return None, [source.finding("not_text", place, "the file is not UTF-8 text", "save it as UTF-8")]
    source.lines = Source("", text).lines
    strange = _UNPRINTABLE.search(text)
    if strange:
        before = Source("", text[: strange.start()]).lines
        place = Place(len(before), len(before[-1]) + 1)
        name = f"U+{ord(strange.group()):04X}"
        return None, [source.finding("not_text", place, f"the character {name} cannot stand in a YAML file")]
    return _Builder(source, env, limits).build(text)


class _TooMuch(Exception):
    """A limit was met: nothing sensible can be said about the rest. Carries the finding."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML up to its node tree, with a depth limit, telling of each explicit tag."""

    def __init__(
        self, text: str, deepest: int, found_tag: Callable[[Mark], None], too_deep: Callable[[Mark], None]
    ) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self.depth = 0
        self.deepest = deepest
        self.found_tag = found_tag
        self.too_deep = too_deep

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if self.depth >= self.deepest:
            self.too_deep(event.start_mark)
        if getattr(event, "tag", None) is not None:
            self.found_tag(event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Builder:
    """Turns PyYAML's nodes into a tree, and collects what is wrong on the way."""

    def __init__(self, source: Source, env: Mapping[str, str] | None, limits: Limits) -> None:
        self.source = source
        self.env = env
        self.limits = limits
        self.findings: list[Finding] = []
        self.nodes = 0
        self.open: list[int] = []

    def build(self, text: str) -> tuple[Tree | None, list[Finding]]:
        loader = _Loader(text, self.limits.depth, self._found_tag, self._too_deep)
        try:
            root = loader.get_node() if loader.check_node() else None
            if root is None:
                self._report("empty", Place(1, 1), "the file is empty")
                return None, self.findings
            if loader.check_node():
                second = loader.peek_event()  # type: ignore[no-untyped-call]
                self._report("documents", _at(second.start_mark), *_ONE_DOCUMENT)
            return self._tree(root), self.findings
        except _TooMuch as stop:
            return None, [*self.findings, stop.finding]
        except MarkedYAMLError as error:
            words = in_words(error, self.source.line(problem_line(error)))
            self._report(*words)
        except (YAMLError, ValueError, OverflowError) as error:
            # PyYAML lets Python's own errors out for an escape or version number beyond all bounds.
            self._report("syntax", _at(loader.get_mark()), f"not YAML: {error}")
        return None, self.findings

    def _report(self, code: str, place: Place, message: str, hint: str = "") -> None:
        self.findings.append(self.source.finding(code, place, message, hint))

    def _found_tag(self, mark: Mark) -> None:
        self._report("tag", _at(mark), "tags (`!…`) mean nothing here", "leave it out; quote a value that is text")

    def _too_deep(self, mark: Mark) -> None:
        message = f"nested deeper than {self.limits.depth} levels"
        raise _TooMuch(self.source.finding("too_large", _at(mark), message))

    def _tree(self, node: Node) -> Tree:
        self.nodes += 1
        if self.nodes > self.limits.nodes:
            message = f"the file holds more than {self.limits.nodes} values, aliases counted"
            raise _TooMuch(self.source.finding("too_large", self._place(node), message))
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        place = self._place(node)
        if id(node) in self.open:
            self._report("syntax", place, "an anchored value contains itself", "write it out")
            return Scalar(place, None, broken=True)
        if len(self.open) >= self.limits.depth:
            self._too_deep(node.start_mark)
        self.open.append(id(node))
        try:
            if isinstance(node, SequenceNode):
                return Sequence(place, [self._tree(item) for item in node.value])
            assert isinstance(node, MappingNode)
            return self._section(node, place)
        finally:
            self.open.pop()

    def _section(self, node: MappingNode, place: Place) -> Section:
        items: dict[str, Tree] = {}
        keys: dict[str, Place] = {}
        incomplete = False
        for key_node, value_node in node.value:
            key = self._key(key_node)
            value = self._tree(value_node)
            if key is None:
                incomplete = True
            elif key in keys:
                first = keys[key].line
                here = self._place(key_node)
                message = f"{quoted(key)} is written twice, in lines {first} and {here.line}"
                self._report("duplicate_key", here, message, "keep one of them")
            else:
                keys[key] = self._place(key_node)
                items[key] = value
        return Section(place, items, keys, incomplete)

    def _key(self, node: Node) -> str | None:
        place = self._place(node)
        if not isinstance(node, ScalarNode):
            self._report("bad_key", place, "a key must be text", "write KEY: VALUE")
            return None
        if node.style is None and node.value == "<<":
            self._report("merge_key", place, "merge keys (`<<`) are not YAML 1.2", "write the keys out")
            return None
        key = node.value if node.style else resolve(node.value)
        if not isinstance(key, str):
            message = f"a key must be text, not {node.value or 'nothing'}"
            self._report("bad_key", place, message, f'quote it: "{node.value}"' if node.value else "write KEY: VALUE")
            return None
        if not self._is_text(key, place):
            return None
        return key

    def _scalar(self, node: ScalarNode) -> Scalar:
        place = self._place(node)
        text, is_quoted = node.value, node.style is not None
        if not self._is_text(text, place):
            return Scalar(place, None, broken=True)
        if self.env is None or "{env:" not in text:
            return Scalar(place, text if is_quoted else resolve(text), text, is_quoted)
        text, problems = substitute(text, self.env)
        for problem in problems:
            self._report(problem.code, self._within(place, problem.written), problem.message, problem.hint)
        if problems:
            return Scalar(place, None, broken=True)
        return Scalar(place, text if is_quoted or not text else resolve(text), text, is_quoted)

    def _is_text(self, text: str, place: Place) -> bool:
        half = next((char for char in text if "\ud800" <= char <= "\udfff"), None)
        if half:
            self._report("not_text", place, f"the escape \\u{ord(half):04x} is no character")
        return half is None

    def _place(self, node: Node) -> Place:
        start, end = node.start_mark, node.end_mark
        if isinstance(node, MappingNode) and not node.flow_style and node.value:
            return self._place(node.value[0][0])
        if isinstance(node, SequenceNode) and not node.flow_style:
            return _at(start)
        line = self.source.line(start.line + 1)
        until = end.column if end.line == start.line else len(line.rstrip())
        return Place(start.line + 1, start.column + 1, max(1, until - start.column))

    def _within(self, place: Place, written: str) -> Place:
        """Return where a part of a scalar stands, if that part is on the scalar's first line."""
        found = self.source.line(place.line).find(written, place.column - 1)
        return place if found < 0 else Place(place.line, found + 1, len(written))


_ONE_DOCUMENT = (
    "a second document begins here",
    "a file holds one document: remove this line or what follows",
)


def _at(mark: Mark) -> Place:
    return Place(mark.line + 1, mark.column + 1)

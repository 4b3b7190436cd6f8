"""What an expression means: names and types checked against the fields there are, then judged over values.

`predicate(text, fields)` refuses what can never make sense, with its place, before anything runs; what it returns is
called with values by name. Knows no class and no message. A value that is missing or null is not known, and so is what
is made of it: the answer is then None, neither true nor false, unless the other side of && or || decides (Kleene 1952).
Whoever selects takes what is true. Odd: a plain number is in the unit of what it is compared with; patterns match the
whole text, and never by a regular expression of the caller's, which could take for ever.
"""

from __future__ import annotations

import difflib
import fnmatch
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ..errors import BadExpression
from . import expression as tree
from .expression import Items, Name, Node, Unary
from .measures import factor, written_units

Kind = Literal["text", "number", "truth", "time"]
Values = Mapping[str, Any]
Evaluate = Callable[[Values], Any]

LONGEST_PATTERN = 256
"""Characters of a pattern."""

_KINDS: dict[Kind, str] = {"text": "a text", "number": "a number", "truth": "true or false", "time": "a time"}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_FITTING: dict[Kind, tuple[str, ...]] = {
    "text": ("==", "!=", "=~", "like", "in"),
    "number": ("==", "!=", "<", "<=", ">", ">=", "in"),
    "truth": ("==", "!="),
    "time": ("==", "!=", "<", "<=", ">", ">="),
}
_EXAMPLES: dict[Kind, str] = {"text": '== "x"', "number": "> 1000", "truth": "", "time": '> "2026-01-31T12:00:00Z"'}


@dataclass(frozen=True)
class FieldType:
    """What a field or an attribute holds. `unit` of a number; `choices`: the only texts it ever has."""

    kind: Kind
    unit: str = ""
    many: bool = False
    choices: tuple[str, ...] = ()
    hidden: str = ""
    """Why its value may not be asked for; empty when it may."""


@dataclass(frozen=True)
class Predicate:
    """A checked expression. `names` are the fields that it looks at."""

    text: str
    names: frozenset[str]
    judge: Evaluate

    def __call__(self, values: Values) -> bool | None:
        """Return whether it holds; None when what is known does not tell."""
        found: bool | None = self.judge(values)
        return found


def predicate(text: str, fields: Mapping[str, FieldType], what: str = "field") -> Predicate:
    """Check an expression over `fields`; `what` says in errors what these are. Raises BadExpression."""
    compiler = _Compiler(text, fields, what)
    node = tree.parse(text)
    found = compiler.compiled(node)
    if found.kind != "truth" or found.many:
        raise compiler.mistake(
            node, f"{found.said} alone is neither true nor false", f"compare it: {_example(found, text)}"
        )
    return Predicate(text, frozenset(compiler.names), found.evaluate)


@dataclass
class _Typed:
    """A part of an expression: what it gives, and how. `unit` None: that of whatever it is compared with."""

    kind: Kind
    evaluate: Evaluate
    said: str
    unit: str | None = None
    many: bool = False
    choices: tuple[str, ...] = ()
    constant: Any = None


class _Compiler:
    def __init__(self, text: str, fields: Mapping[str, FieldType], what: str) -> None:
        self.text = text
        self.fields = fields
        self.what = what
        self.names: set[str] = set()

    def compiled(self, node: Node) -> _Typed:
        match node:
            case tree.Literal():
                return _literal(node)
            case Name():
                return self._name(node)
            case Unary("!", operand):
                return _Typed("truth", _not(self._truth(operand)), "what ! makes")
            case Unary(_, operand):
                return self._minus(self._number(operand))
            case tree.Binary("&&" | "||", left, right):
                joint = _both if node.operator == "&&" else _either
                return _Typed("truth", joint(self._truth(left), self._truth(right)), f"what {node.operator} makes")
            case tree.Binary(sign) if sign in _ARITHMETIC:
                return self._arithmetic(node)
            case tree.Binary():
                return self._comparison(node)
            case Items():
                raise AssertionError("the parser takes a list behind `in` only")

    def mistake(self, node: Node, message: str, hint: str) -> BadExpression:
        return tree.mistake(self.text, node.place, message, hint)

    # --- parts --------------------------------------------------------------------------------------------------

    def _name(self, node: Name) -> _Typed:
        known = sorted(self.fields)
        found = self.fields.get(node.name)
        if found is None:
            near = difflib.get_close_matches(node.name, known, n=1)
            guess = f"did you mean {near[0]}? " if near else ""
            there = f"{self.what}s: {', '.join(known)}" if known else f"there are no {self.what}s"
            hint = f"{guess}{there}" if near or not _is_word(node.name) else f'{there}; a text is quoted: "{node.name}"'
            raise self.mistake(node, f"there is no {self.what} {node.name!r}", hint)
        if found.hidden:
            raise self.mistake(node, f"{node.name} cannot be asked for: {found.hidden}", "leave it out")
        if node.previous:
            hint = "X@prev is for conditions, which see one value after another"
            raise self.mistake(node, f"there is no value before this one of {node.name} here", hint)
        self.names.add(node.name)
        evaluate: Evaluate = _time_of(node.name) if found.kind == "time" else _value_of(node.name)
        unit = found.unit if found.kind == "number" else None
        return _Typed(found.kind, evaluate, node.name, unit, found.many, found.choices)

    def _truth(self, node: Node) -> Evaluate:
        found = self.compiled(node)
        if found.kind != "truth" or found.many:
            raise self.mistake(
                node, f"{found.said} is neither true nor false", f"compare it: {_example(found, self.text)}"
            )
        return found.evaluate

    def _number(self, node: Node) -> _Typed:
        found = self.compiled(node)
        if found.kind != "number" or found.many:
            raise self.mistake(node, f"{found.said} is no number", "only numbers can be reckoned with")
        return found

    def _minus(self, found: _Typed) -> _Typed:
        return _Typed("number", _applied(lambda value, _: -value, found.evaluate, _always(0)), found.said, found.unit)

    def _arithmetic(self, node: tree.Binary) -> _Typed:
        left, right = self._number(node.left), self._number(node.right)
        said = f"what {node.operator} makes"
        function = _ARITHMETIC[node.operator]
        if node.operator in "+-":
            unit = self._level(node, left, right)
        elif node.operator == "/" and left.unit and right.unit and factor(right.unit, left.unit) is not None:
            self._level(node, left, right)
            unit = ""  # bytes by bytes: a plain number
        else:
            unit = _combined(node.operator, left.unit, right.unit)
        constant = None if left.constant is None or right.constant is None else 0
        return _Typed("number", _applied(function, left.evaluate, right.evaluate), said, unit, constant=constant)

    def _level(self, node: tree.Binary, left: _Typed, right: _Typed) -> str | None:
        """Bring both numbers to one unit, which is returned."""
        if left.unit is None or right.unit is None or left.unit == right.unit:
            return right.unit if left.unit is None else left.unit
        if right.constant is None and left.constant is not None:
            left.evaluate = _scaled(left.evaluate, self._factor(node.left, left, right))
            return right.unit
        right.evaluate = _scaled(right.evaluate, self._factor(node.right, right, left))
        return left.unit

    def _factor(self, node: Node, found: _Typed, other: _Typed) -> float:
        times = factor(found.unit or "", other.unit or "")
        if times is not None:
            return times
        has = f"is in {other.unit}" if other.unit else "has no unit"
        units = ", ".join(written_units(other.unit or ""))
        hint = "write a plain number" + (f", or one with {units}" if units else "")
        raise self.mistake(node, f"{found.said} is in {found.unit}, {other.said} {has}", hint)

    # --- comparisons --------------------------------------------------------------------------------------------

    def _comparison(self, node: tree.Binary) -> _Typed:
        if node.operator == "in":
            return _Typed("truth", self._membership(node), "what `in` makes")
        left, right = self.compiled(node.left), self.compiled(node.right)
        if left.constant is not None and right.constant is None and node.operator in _COMPARE:
            evaluate = self._compared(node, right, left, node.right, node.left, turned=True)
        else:
            evaluate = self._compared(node, left, right, node.left, node.right)
        return _Typed("truth", evaluate, f"what {node.operator} makes")

    def _compared(
        self, node: tree.Binary, one: _Typed, other: _Typed, place: Node, at: Node, turned: bool = False
    ) -> Evaluate:
        """Return the comparison of `one` with `other`; `turned`: they stand the other way round in the text."""
        sign = node.operator
        if one.many:
            raise self.mistake(place, f"{one.said} is a list", f'write VALUE in {one.said}, as in "x" in {one.said}')
        if sign not in _FITTING[one.kind]:
            allowed = " ".join(_FITTING[one.kind])
            raise self.mistake(
                node, f"{sign} does not fit {one.said}, which is {_KINDS[one.kind]}", f"allowed: {allowed}"
            )
        if one.kind == "time" and other.kind == "text" and other.constant is not None:
            other.evaluate = _always(self._moment(at, other.constant))
        elif one.kind != other.kind or other.many:
            raise self._unlike(node, one, other, at)
        if one.kind == "number":
            self._level(node, *((other, one) if turned else (one, other)))
        if sign in ("=~", "like"):
            return _matched(one.evaluate, self._pattern(at, sign, other.constant))
        if one.choices and other.constant is not None:
            self._choice(at, one, other.constant)
        pair = (other.evaluate, one.evaluate) if turned else (one.evaluate, other.evaluate)
        return _applied(_COMPARE[sign], *pair)

    def _unlike(self, node: tree.Binary, one: _Typed, other: _Typed, at: Node) -> BadExpression:
        hint = f"as in {one.said} {_EXAMPLES[one.kind]}" if _EXAMPLES[one.kind] else f"write {one.said} or !{one.said}"
        if one.kind == "text" and isinstance(at, tree.Literal):
            hint = f'write {one.said} {node.operator} "{tree.show(at)}"'
        found = "a list" if other.many else _KINDS[other.kind]
        return self.mistake(at, f"{one.said} is {_KINDS[one.kind]}, and this is {found}", hint)

    def _membership(self, node: tree.Binary) -> Evaluate:
        one = self.compiled(node.left)
        if one.many:
            raise self.mistake(
                node.left, f"{one.said} is a list", f'write VALUE in {one.said}, as in "x" in {one.said}'
            )
        if not isinstance(node.right, Items):
            other = self.compiled(node.right)
            if not other.many:
                raise self.mistake(node.right, f"{other.said} is no list", 'as in Type in ["ext4", "xfs"]')
            if one.kind != other.kind:
                raise self._unlike(node, _Typed(other.kind, other.evaluate, f"an item of {other.said}"), one, node.left)
            if one.kind == "number":
                one.evaluate = _scaled(one.evaluate, self._factor(node.left, one, other) if _differ(one, other) else 1)
            return _applied(lambda value, items: value in items, one.evaluate, other.evaluate)
        values = set()
        for item in node.right.items:
            other = _literal(item)
            alike = tree.Binary("==", node.left, item, item.place)
            evaluate = self._compared(alike, one, other, node.left, item)
            del evaluate  # made to check the item as `==` does
            values.add(other.evaluate({}))
        return _applied(lambda value, items: value in items, one.evaluate, _always(values))

    def _moment(self, node: Node, text: str) -> datetime:
        found = _moment(text)
        if found is None:
            raise self.mistake(node, f"{text!r} is no time", 'write it like "2026-01-31T12:00:00Z"')
        return found

    def _pattern(self, node: Node, sign: str, pattern: Any) -> re.Pattern[str]:
        if not isinstance(pattern, str):
            raise self.mistake(node, "a pattern is a text in quotes", 'as in =~ "registry.*", or like "/var%"')
        if len(pattern) > LONGEST_PATTERN:
            raise self.mistake(node, f"a pattern of {len(pattern)} characters", f"at most {LONGEST_PATTERN}")
        return re.compile(fnmatch.translate(pattern if sign == "=~" else _as_shell(pattern)))

    def _choice(self, node: Node, one: _Typed, value: str) -> None:
        if value not in one.choices:
            near = difflib.get_close_matches(value, one.choices, n=1)
            guess = f"did you mean {near[0]}? " if near else ""
            raise self.mistake(node, f"{one.said} is never {value!r}", f"{guess}it is one of {', '.join(one.choices)}")


def _literal(node: tree.Literal) -> _Typed:
    value = node.value
    if isinstance(value, bool):
        return _Typed("truth", _always(value), tree.show(node), constant=value)
    if isinstance(value, str):
        return _Typed("text", _always(value), tree.show(node), constant=value)
    return _Typed("number", _always(value), tree.show(node), node.unit or None, constant=value)


def _example(found: _Typed, text: str) -> str:
    if found.many:
        return f'"x" in {found.said}'
    return f"as in {found.said if found.said in text else 'X'} {_EXAMPLES[found.kind]}"


def _is_word(text: str) -> bool:
    """Whether somebody may have meant a text and left out its quotes."""
    return text.islower()


def _differ(one: _Typed, other: _Typed) -> bool:
    return one.unit is not None and one.unit != other.unit


def _combined(sign: str, left: str | None, right: str | None) -> str | None:
    if not right:
        return left if left is not None else right
    if sign == "*":
        return f"{left}.{right}" if left else right
    return f"{left or '1'}/{right}"


def _as_shell(pattern: str) -> str:
    """Return an SQL pattern (% any text, _ one character, a backslash before one that is meant) as a shell pattern."""
    meaning = {"%": "*", "_": "?"}
    parts = re.findall(r"(?s)\\.|.", pattern)
    return "".join(meaning.get(part) or re.sub(r"[*?\[]", r"[\g<0>]", part[-1]) for part in parts)


# --- how it is judged --------------------------------------------------------------------------------------------


def _always(value: Any) -> Evaluate:
    return lambda _: value


def _value_of(name: str) -> Evaluate:
    return lambda values: values.get(name)


def _time_of(name: str) -> Evaluate:
    def evaluate(values: Values) -> datetime | None:
        found = values.get(name)
        return _moment(found) if isinstance(found, str) else None

    return evaluate


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _not(operand: Evaluate) -> Evaluate:
    def evaluate(values: Values) -> bool | None:
        found = operand(values)
        return None if found is None else not found

    return evaluate


def _both(left: Evaluate, right: Evaluate) -> Evaluate:
    def evaluate(values: Values) -> bool | None:
        one = left(values)
        if one is False:
            return False
        other = right(values)
        return other if one or other is False else None

    return evaluate


def _either(left: Evaluate, right: Evaluate) -> Evaluate:
    def evaluate(values: Values) -> bool | None:
        one = left(values)
        if one:
            return True
        other = right(values)
        return other if one is False or other else None

    return evaluate


def _applied(function: Callable[[Any, Any], Any], left: Evaluate, right: Evaluate) -> Evaluate:
    def evaluate(values: Values) -> Any:
        one = left(values)
        other = right(values)
        if one is None or other is None:
            return None
        try:
            return function(one, other)
        except (ArithmeticError, TypeError):  # divided by nothing; a value of another type than was declared
            return None

    return evaluate


def _matched(operand: Evaluate, pattern: re.Pattern[str]) -> Evaluate:
    def evaluate(values: Values) -> bool | None:
        found = operand(values)
        return pattern.match(found) is not None if isinstance(found, str) else None

    return evaluate


def _scaled(operand: Evaluate, times: float) -> Evaluate:
    return operand if times == 1 else _applied(operator.mul, operand, _always(times))

"""The one expression language of filters, selections and conditions: from text to a tree, and back.

`PercentUsed > 90 && MountPoint like "/var%"`: comparisons (== != < <= > >=, =~ with a shell pattern, like with an SQL
pattern, in with a list) joined by && and ||, turned round by !, over names, texts, numbers (with a unit if one likes),
true, false, sums and products. Knows no names and no types: `judging.py` has those. Every mistake is a `BadExpression`
that shows the place. Odd: ! takes the whole comparison behind it, so `!a == b` is `!(a == b)`; `like` and `in` are
words only where a comparison can stand, so attributes may have these names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import BadExpression

LONGEST = 4096
"""Characters of an expression."""

DEEPEST = 30
"""Parentheses and signs within one another."""

MOST = 100
"""Names and values in an expression, those of lists apart: what is judged for every message must stay small."""

EXAMPLE = 'for example: kind == "request" && size > 1000'
_LONGEST_NUMBER = 40

_TOKEN = re.compile(
    r"""
        (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?:%|[A-Za-z]+)?)(?![A-Za-z0-9_.])
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<sign>&&|\|\||==|!=|=~|<=|>=|[<>()!=@+\-*/,\[\]])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(.*)", re.ASCII)

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "=~", "like", "in")
_LEVELS = {"||": 1, "&&": 2, **dict.fromkeys(COMPARISONS, 4), "+": 5, "-": 5, "*": 6, "/": 6}
_NOT, _COMPARISON, _MINUS, _ATOM = 3, 4, 7, 8
_WORDS = {"and": "&&", "or": "||", "AND": "&&", "OR": "||"}


class Place(NamedTuple):
    """Where something stands in the text: from which character on, and how many."""

    at: int = 0
    width: int = 1


@dataclass(frozen=True)
class Literal:
    """A text, a number, true or false. `unit` is what stands right behind a number."""

    value: str | int | float | bool
    unit: str = ""
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True)
class Name:
    """The value of a field or an attribute; `previous`: the one before, written `X@prev`."""

    name: str
    previous: bool = False
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True)
class Items:
    """A list of values, behind `in`."""

    items: tuple[Literal, ...]
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True)
class Unary:
    """`!` or `-` before something. A minus before a number is part of the number."""

    operator: str
    operand: Node
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True)
class Binary:
    """Two things with an operator between them; `place` is that of the operator."""

    operator: str
    left: Node
    right: Node
    place: Place = field(default=Place(), compare=False)


Node = Literal | Name | Items | Unary | Binary


def parse(text: str) -> Node:
    """Return the tree of an expression. Raises BadExpression, which shows where and what is allowed there."""
    return _Parser(text).parse()


def show(node: Node) -> str:
    """Return the text of a tree, with no more parentheses than it needs; `parse` makes the same tree of it."""
    return _shown(node, 0)


def quote(text: str) -> str:
    """Return a text as it is written in an expression."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def mistake(text: str, place: Place, message: str, hint: str) -> BadExpression:
    """Return the error with the text and a mark under the place."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return BadExpression(f"{message}\n  {line}\n  {' ' * place.at}{'^' * max(place.width, 1)}", hint)


def _shown(node: Node, least: int) -> str:
    match node:
        case Literal(bool(value)):
            return "true" if value else "false"
        case Literal(str(value)):
            return quote(value)
        case Literal(value, unit):
            return f"{value!r}{unit}"
        case Name(name, previous):
            return f"{name}@prev" if previous else name
        case Items(items):
            return f"[{', '.join(_shown(item, 0) for item in items)}]"
        case Unary(operator, operand):
            own, inner = (_NOT, _NOT) if operator == "!" else (_MINUS, _MINUS)
            text = operator + _shown(operand, inner)
        case Binary(operator, left, right):
            own = _LEVELS[operator]
            # comparisons do not chain, everything else groups to the left
            text = f"{_shown(left, own + (own == _COMPARISON))} {operator} {_shown(right, own + 1)}"
    return text if own >= least else f"({text})"


class _Token(NamedTuple):
    kind: str
    text: str
    place: Place


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > LONGEST:
            hint = "select more coarsely"
            raise BadExpression(f"an expression of {len(text)} characters: at most {LONGEST} are taken", hint)
        self.tokens = list(self._tokens())
        self.index = 0
        self.depth = 0
        self.count = 0

    def parse(self) -> Node:
        node = self._expression(0)
        token = self._next()
        if token.kind != "end":
            hint = f"write {_WORDS[token.text]}" if token.text in _WORDS else "join comparisons with && or ||"
            raise self._mistake(token, f"expected && or || or the end, found {token.text!r}", hint)
        return node

    def _expression(self, least: int) -> Node:
        left = self._prefix(least)
        while (level := self._level()) >= max(least, 1):
            token = self._take()
            if level == _COMPARISON:
                right = self._items() if token.text == "in" and self._next().text in ("[", "(") else None
                left = Binary(token.text, left, right or self._expression(level + 1), token.place)
                if self._level() == _COMPARISON:
                    hint = "write each comparison for itself and join them: a < b && b < c"
                    raise self._mistake(self._next(), "a comparison of a comparison", hint)
            else:
                left = Binary(token.text, left, self._expression(level + 1), token.place)
        return left

    def _level(self) -> int:
        token = self._next()
        if token.text == "=" and token.kind == "sign":
            raise self._mistake(token, "a single = compares nothing", 'write ==, as in kind == "request"')
        return _LEVELS.get(token.text, 0) if token.kind in ("sign", "name") else 0

    def _prefix(self, least: int) -> Node:
        token = self._take()
        if token.text not in ("!", "-", "(") or token.kind != "sign":
            return self._atom(token)
        self.depth += 1
        if self.depth > DEEPEST:
            raise self._mistake(token, f"more than {DEEPEST} parentheses within one another", "write it more simply")
        node: Node
        if token.text == "(":
            node = self._expression(0)
            closing = self._take()
            if closing.text != ")":
                raise self._mistake(closing, "the parenthesis is not closed here", "write )")
        elif token.text == "!":
            if least > _NOT:
                raise self._mistake(token, "! cannot stand here", "put it and what it turns round in parentheses")
            node = Unary("!", self._expression(_NOT), token.place)
        else:
            operand = self._expression(_MINUS)
            if isinstance(operand, Literal) and _is_number(operand):
                width = operand.place.at + operand.place.width - token.place.at
                node = Literal(-operand.value, operand.unit, Place(token.place.at, width))  # type: ignore[operator]
            else:
                node = Unary("-", operand, token.place)
        self.depth -= 1
        return node

    def _atom(self, token: _Token) -> Node:
        self.count += 1
        if self.count > MOST:
            raise self._mistake(token, f"more than {MOST} names and values", "a list behind `in` may be longer")
        if token.kind == "name" and token.text not in ("true", "false"):
            return self._name(token)
        if token.text == "[":
            raise self._mistake(token, "a list stands behind `in` only", 'as in Type in ["ext4", "xfs"]')
        return self._literal(token, "the name of a field, a value")

    def _name(self, token: _Token) -> Name:
        if self._next().text != "@":
            return Name(token.text, False, token.place)
        self._take()
        word = self._take()
        if word.text != "prev":
            raise self._mistake(word, "behind @ stands prev, for the value before", f"write {token.text}@prev")
        return Name(token.text, True, Place(token.place.at, word.place.at + word.place.width - token.place.at))

    def _literal(self, token: _Token, wanted: str) -> Literal:
        if token.kind == "text":
            return Literal(re.sub(r"(?s)\\(.)", r"\1", token.text[1:-1]), "", token.place)
        if token.kind == "number":
            return self._number(token)
        if token.text in ("true", "false"):
            return Literal(token.text == "true", "", token.place)
        found = repr(token.text) if token.text else "the end"
        raise self._mistake(token, f"expected {wanted}, found {found}", EXAMPLE)

    def _number(self, token: _Token) -> Literal:
        match = _NUMBER.fullmatch(token.text)
        assert match is not None
        digits, unit = match.groups()
        value = int(digits) if digits.isdecimal() else float(digits)
        if len(digits) > _LONGEST_NUMBER or value == float("inf"):
            raise self._mistake(token, "this number is too large", f"at most {_LONGEST_NUMBER} digits")
        return Literal(value, unit, token.place)

    def _items(self) -> Items:
        opening = self._take()
        closing = {"[": "]", "(": ")"}[opening.text]
        items: list[Literal] = []
        token = self._take()
        while True:
            sign = token.text == "-" and token.kind == "sign"
            item = self._literal(self._take() if sign else token, "a value of the list")
            if sign and not _is_number(item):
                raise self._mistake(token, "a minus before what is no number", "leave it out")
            items.append(Literal(-item.value, item.unit, item.place) if sign else item)  # type: ignore[operator]
            token = self._take()
            if token.text == closing and token.kind == "sign":
                return Items(tuple(items), Place(opening.place.at, token.place.at + 1 - opening.place.at))
            if token.text != "," or token.kind != "sign":
                raise self._mistake(token, "the list is not closed here", f"write , or {closing}")
            token = self._take()

    # --- tokens -------------------------------------------------------------------------------------------------

    def _tokens(self) -> Iterator[_Token]:
        at = 0
        while True:
            at += len(self.text[at:]) - len(self.text[at:].lstrip())
            if at == len(self.text):
                break
            found = _TOKEN.match(self.text, at)
            if found is None:
                char = self.text[at]
                what = "a quote that is never closed" if char in "\"'" else f"{char!r} means nothing here"
                raise mistake(self.text, Place(at), what, EXAMPLE)
            yield _Token(str(found.lastgroup), found[0], Place(at, found.end() - at))
            at = found.end()
        yield _Token("end", "", Place(at))

    def _next(self) -> _Token:
        return self.tokens[self.index]

    def _take(self) -> _Token:
        token = self.tokens[self.index]
        self.index = min(self.index + 1, len(self.tokens) - 1)
        return token

    def _mistake(self, token: _Token, message: str, hint: str) -> BadExpression:
        return mistake(self.text, token.place, message, hint)


def _is_number(found: Literal) -> bool:
    return isinstance(found.value, (int, float)) and not isinstance(found.value, bool)

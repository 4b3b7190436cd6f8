"""The filter of `covey tap` as people write it, turned into the conditions that a broker tests.

`kind == "request" && topic =~ "registry.*" && size > 1000`: comparisons of a field with a text or a number, all of
which must hold. Knows the fields by what the broker's tap says of them. Errors show the place and what is allowed
there. What is odd: `=~` is a shell pattern over the whole text, never a regular expression, because the test runs in
the broker's loop for every message and must not be able to hang it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from ..errors import BadExpression, NotImplementedYet

NUMBERS = frozenset({"id", "size"})
VALUES = {
    "kind": ("request", "reply", "error", "event", "control"),
    "direction": ("in", "out"),
}
OPERATORS = ("==", "!=", "=~", "<=", ">=", "<", ">")

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<number>-?\d+(?:\.\d+)?(?![\w.]))
      | (?P<name>[A-Za-z_][\w.]*)
      | (?P<sign>&&|\|\||==|!=|=~|<=|>=|[<>()!=@+\-*/])
    )""",
    re.VERBOSE,
)
_LATER = ("||", "(", ")", "!", "@", "+", "-", "*", "/", "like", "in", "and", "or", "not")


@dataclass(frozen=True)
class Condition:
    """`field operator value`, in the words of the verb `tap_attach` of the service `bus`."""

    field: str
    operator: str
    value: str | int | float

    def as_dict(self) -> dict[str, Any]:
        """Return it as the broker takes it."""
        return {"field": self.field, "operator": self.operator, "value": self.value}


class Token(NamedTuple):
    """A word of the expression and where it begins."""

    kind: str
    text: str
    at: int


def parse(text: str, fields: Collection[str]) -> list[Condition]:
    """Return the conditions that all must hold; raises BadExpression, which shows where and what is allowed."""
    return _Parser(text, fields).parse()


class _Parser:
    def __init__(self, text: str, fields: Collection[str]) -> None:
        self.text = text
        self.fields = fields
        self.tokens = self._read()
        self.index = 0

    def parse(self) -> list[Condition]:
        conditions = [self._comparison()]
        while self._next().kind != "end":
            joint = self._take()
            if joint.text != "&&":
                self._fail(joint, f"expected && or the end, found {joint.text!r}", "join comparisons with &&")
            conditions.append(self._comparison())
        return conditions

    def _comparison(self) -> Condition:
        field = self._field(self._take())
        operator = self._operator(field, self._take())
        return Condition(field, operator, self._value(field, operator, self._take()))

    def _field(self, token: Token) -> str:
        if token.kind != "name":
            self._fail(token, "expected the name of a field", f"fields: {', '.join(self.fields)}")
        if token.text not in self.fields:
            near = difflib.get_close_matches(token.text, self.fields, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            self._fail(token, f"there is no field {token.text!r}", f"{hint}fields: {', '.join(self.fields)}")
        return token.text

    def _operator(self, field: str, token: Token) -> str:
        allowed = [sign for sign in OPERATORS if (sign in ("==", "!=")) or (sign == "=~") is not (field in NUMBERS)]
        if token.text == "=":
            self._fail(token, "a single = compares nothing", 'write ==, as in kind == "request"')
        if token.text not in allowed:
            found = repr(token.text) if token.text else "the end"
            self._fail(token, f"expected a comparison after {field}, found {found}", f"allowed: {' '.join(allowed)}")
        return token.text

    def _value(self, field: str, operator: str, token: Token) -> str | int | float:
        if field in NUMBERS:
            if token.kind != "number":
                self._fail(token, f"{field} is compared with a number", f"as in {field} {operator} 1000")
            return float(token.text) if "." in token.text else int(token.text)
        if token.kind != "text":
            found = token.text or "…"
            self._fail(token, f"{field} is compared with a text in quotes", f'write {field} {operator} "{found}"')
        value = re.sub(r"\\(.)", r"\1", token.text[1:-1])
        known = VALUES.get(field)
        if known and operator != "=~" and value not in known:
            near = difflib.get_close_matches(value, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            self._fail(token, f"{field} is never {value!r}", f"{hint}it is one of {', '.join(known)}")
        return value

    def _read(self) -> list[Token]:
        tokens = []
        at = 0
        while self.text[at:].strip():
            found = _TOKEN.match(self.text, at)
            if found is None:
                place = at + len(self.text[at:]) - len(self.text[at:].lstrip())
                char = self.text[place]
                what = "a quote that is never closed" if char in "\"'" else f"{char!r} means nothing here"
                self._fail(Token("", char, place), what, 'for example: kind == "request" && topic =~ "registry.*"')
            kind = str(found.lastgroup)
            tokens.append(Token(kind, found[kind], found.start(kind)))
            at = found.end()
        return [*tokens, Token("end", "", len(self.text))]

    def _next(self) -> Token:
        return self.tokens[self.index]

    def _take(self) -> Token:
        token = self.tokens[self.index]
        self.index = min(self.index + 1, len(self.tokens) - 1)
        if token.text in _LATER:
            raise NotImplementedYet(
                f"{token.text!r} in a filter is not built yet (SPEC 13.4)", "join comparisons with && only"
            )
        return token

    def _fail(self, token: Token, message: str, hint: str) -> NoReturn:
        width = max(len(token.text), 1)
        raise BadExpression(f"{message}\n  {self.text}\n  {' ' * token.at}{'^' * width}", hint)

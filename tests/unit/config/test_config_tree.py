"""From bytes to a tree with positions, whatever the bytes are."""

from __future__ import annotations

import pytest
from covey.config.findings import Finding, Place, Source
from covey.config.tree import MAX_BYTES, Scalar, Section, Tree, parse, plain


def tree(data: str | bytes, **env: str) -> tuple[Tree | None, list[Finding]]:
    return parse(data.encode() if isinstance(data, str) else data, Source("f.yaml"), env)


def places(data: str | bytes) -> list[tuple[str, int, int]]:
    return [(found.code, found.line, found.column) for found in tree(data)[1]]


def values(data: str | bytes, **env: str) -> object:
    root, findings = tree(data, **env)
    assert not findings
    assert root is not None
    return plain(root)


def test_values() -> None:
    text = "a: [1, no, '2', ~]\nb: {c: 1.5, d: x}\ne: |\n  one\n  two\n"
    assert values(text) == {"a": [1, "no", "2", None], "b": {"c": 1.5, "d": "x"}, "e": "one\ntwo\n"}


def test_plain_variables_are_typed_afterwards_and_quoted_ones_are_text() -> None:
    env = {"PORT": "7400", "FLAG": "true", "EMPTY": ""}
    text = "a: ${env:PORT}\nb: '${env:PORT}'\nc: ${env:FLAG}\nd: ${env:EMPTY}\ne: ${env:NO:-~}\nf: 1${env:PORT}\n"
    assert values(text, **env) == {"a": 7400, "b": "7400", "c": True, "d": "", "e": None, "f": 17400}


def test_a_variable_cannot_inject_structure() -> None:
    assert values("a: ${env:X}\n", X="1\nb: {c: [2]}") == {"a": "1\nb: {c: [2]}"}


def test_variables_are_not_replaced_in_keys() -> None:
    assert values("${env:X}: 1\n", X="y") == {"${env:X}": 1}


def test_positions_of_keys_and_values() -> None:
    root, _ = tree("node:\n  name: 'n1'\n  list:\n  - x\n  empty:\n")
    assert isinstance(root, Section)
    node = root.items["node"]
    assert isinstance(node, Section)
    assert root.keys["node"] == Place(1, 1, 4)
    assert node.keys["name"] == Place(2, 3, 4)
    assert node.items["name"] == Scalar(Place(2, 9, 4), "n1", "n1", quoted=True)
    assert node.items["list"].place == Place(4, 3)
    assert node.items["empty"].place == Place(5, 9)


@pytest.mark.parametrize("data", [b"\xef\xbb\xbfa: !x 1\n", b"a: !x 1\n", b"a: !x 1\r\n"])
def test_a_byte_order_mark_moves_nothing(data: bytes) -> None:
    assert places(data) == [("config.tag", 1, 4)]


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [
        (b"a: 1\nb: \xff\n", 2, 4),
        (b"\xff\xfea\x00:\x00", 1, 1),
        (b"a: \x00", 1, 4),
        (b"a: 1\nbb: \x1b[0m", 2, 5),
        ("ä: 1\nb: ".encode() + b"\xe4", 2, 4),
        (b'a: "\\ud83d"', 1, 4),
    ],
)
def test_what_is_no_text_has_a_place(data: bytes, line: int, column: int) -> None:
    assert places(data) == [("config.not_text", line, column)]


@pytest.mark.parametrize("data", ["", "\n\n", "# only words\n", "---\n"])
def test_empty_files(data: str) -> None:
    if data == "---\n":
        assert values(data) is None
    else:
        assert places(data) == [("config.empty", 1, 1)]


def test_limits() -> None:
    assert places(b"a" * (MAX_BYTES + 1)) == [("config.too_large", 1, 1)]
    assert places("[" * 40 + "]" * 40) == [("config.too_large", 1, 33)]
    assert places("[" * 100_000) == [("config.too_large", 1, 33)]
    assert places("a: " + "{a: " * 40 + "1" + "}" * 40)[0][0] == "config.too_large"


def test_aliases_work_and_cannot_grow_without_bound() -> None:
    assert values("a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}
    laughs = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for step in range(1, 12):
        laughs += f"a{step}: &a{step} [{', '.join([f'*a{step - 1}'] * 10)}]\n"
    assert [code for code, *_ in places(laughs)] == ["config.too_large"]


def test_aliases_cannot_nest_without_bound() -> None:
    deep = "a0: &a0 [1]\n" + "".join(f"a{step}: &a{step} [[[[*a{step - 1}]]]]\n" for step in range(1, 20))
    assert [code for code, *_ in places(deep)] == ["config.too_large"]


@pytest.mark.parametrize("data", ["&x [*x]", "a: &x {b: *x}", "&x\n- *x\n"])
def test_an_alias_of_itself(data: str) -> None:
    assert [code for code, *_ in places(data)] == ["config.syntax"]


@pytest.mark.parametrize("data", ['a: "\\UFFFFFFFF"', 'a: "\\U00110000"', "%YAML 1." + "9" * 5000 + "\n---\na: 1"])
def test_what_even_the_parser_chokes_on(data: str) -> None:
    assert [code for code, *_ in places(data)] == ["config.syntax"]


def test_a_duplicate_names_both_lines_and_the_first_counts() -> None:
    root, findings = tree("a: 1\n\nb: 2\na: 3\n")
    assert root is not None
    assert plain(root) == {"a": 1, "b": 2}
    assert [found.message for found in findings] == ["'a' is written twice, in lines 1 and 4"]


def test_every_mistake_of_the_tree_at_once() -> None:
    text = "a: 1\na: 2\n1: x\nb: !t 5\nc: ${env:NO}\nd: {<<: {}}\n---\n"
    assert places(text) == [
        ("config.tag", 4, 4),
        ("config.documents", 7, 1),
        ("config.duplicate_key", 2, 1),
        ("config.bad_key", 3, 1),
        ("config.unset_variable", 5, 4),
        ("config.merge_key", 6, 5),
    ]

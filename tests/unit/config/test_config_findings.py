"""How findings look."""

from __future__ import annotations

from covey.config.findings import Finding, Place, Source, in_order, quoted, render_all


def finding(line: int = 4, column: int = 3, **more: object) -> Finding:
    fields: dict[str, object] = {"message": "unknown key 'brokr' in 'node'", "source": "  brokr: tcp://0.0.0.0:9000"}
    return Finding("config.unknown_key", "error", "node.yaml", line, column, **{**fields, "width": 5, **more})  # type: ignore[arg-type]


def test_rendering_is_what_people_were_promised() -> None:
    assert finding(hint="did you mean 'broker'?\nallowed: broker, name").render() == (
        "node.yaml:4:3: error[config.unknown_key]: unknown key 'brokr' in 'node'\n"
        "    4 |   brokr: tcp://0.0.0.0:9000\n"
        "      |   ^^^^^ did you mean 'broker'?\n"
        "      = allowed: broker, name"
    )


def test_a_list_of_what_is_allowed_goes_below_the_carets() -> None:
    assert finding(hint="allowed: broker, name").render().splitlines()[2:] == [
        "      |   ^^^^^",
        "      = allowed: broker, name",
    ]


def test_without_a_source_line_the_hint_follows_the_head() -> None:
    assert finding(source="", message="there is no such file", hint="check the path").render() == (
        "node.yaml:4:3: error[config.unknown_key]: there is no such file\n      = check the path"
    )


def test_as_dict_has_the_fields_of_config_check() -> None:
    assert list(finding(hint="h").as_dict()) == ["code", "severity", "file", "line", "column", "message", "hint"]


def test_carets_stand_below_wide_characters_and_tabs() -> None:
    lines = finding(1, 8, source='a\t"節点" x: 1', width=1, hint="").render().splitlines()
    assert lines[1] == '    1 | a\t"節点" x: 1'
    assert lines[2] == "      |  \t       ^"


def test_a_long_line_is_cut_around_the_place() -> None:
    source = "a" * 300 + "WRONG" + "b" * 300
    _, shown, carets = finding(1, 301, source=source, width=5).render().splitlines()
    assert len(shown) < 120
    assert shown[carets.index("^") : carets.rindex("^") + 1] == "WRONG"


def test_nothing_in_a_file_reaches_the_terminal_as_a_command() -> None:
    text = finding(source="\x1b[31mred", message="bad '\x9b'", hint="not \x07").render()
    assert all(char.isprintable() or char == "\n" for char in text)


def test_findings_are_in_order_and_each_once() -> None:
    late, early = finding(9, 1), finding(2, 7)
    assert in_order([late, early, finding(2, 3), late]) == [finding(2, 3), early, late]


def test_many_findings_are_counted_not_shown() -> None:
    text = render_all([finding(line) for line in range(1, 31)])
    assert text.count("error[") == 20
    assert text.splitlines()[-2:] == ["… and 10 more", "30 errors in node.yaml"]


def test_the_last_line_counts_errors_and_warnings() -> None:
    warning = Finding("config.unknown_controller", "warning", "node.yaml", 1, 1, "m")
    assert render_all([finding(), warning]).endswith("\n1 error and 1 warning in node.yaml")
    assert render_all([]) == ""


def test_a_generic_code_gets_the_prefix_of_its_file() -> None:
    source = Source("gpu.yaml", "a\r\nb\rc\n", prefix="description.")
    found = source.finding("missing", Place(3, 1), "m")
    assert (found.code, found.source) == ("description.missing", "c")
    assert source.finding("core.not_implemented", Place(9, 1), "m").code == "core.not_implemented"


def test_long_values_are_cut_in_messages() -> None:
    assert len(quoted("x" * 1000)) < 70
    assert quoted("a\n  b") == "'a b'"

"""What needs no daemon: `covey config`, `covey explain`, `covey version`."""

from __future__ import annotations

import json

import pytest
from covey import errors
from covey.bus.security import make_keys

GOOD = """\
node:
  name: n1
  state_dir: ./n1
  identity: generated
  adapters: [127.1.0.1/16]
  port: 7400
security: {mode: open}
"""


def test_a_good_file(covey, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "n1.yaml"
    file.write_text(GOOD)
    answer = covey("config", "check", str(file))
    assert (answer.exit_code, answer.stdout) == (0, f"{file}: ok\n")
    assert json.loads(covey("config", "check", str(file), "-o", "json").stdout)["data"] == []
    shown = json.loads(covey("config", "show", str(file), "-o", "json").stdout)["data"]
    assert shown["node"]["state_dir"] == str(tmp_path / "n1")
    assert shown["isolation"] == "process"
    assert "node.port" in covey("config", "show", str(file)).stdout


def test_all_findings_at_once(covey, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "n1.yaml"
    file.write_text(GOOD.replace("port: 7400", "port: x").replace("name:", "nmae:").replace("open", "opne"))
    answer = covey("config", "check", str(file), "-o", "json")
    assert answer.exit_code == 10
    findings = json.loads(answer.stdout)["data"]
    assert {found["line"] for found in findings} >= {2, 6, 7}
    assert {"code", "severity", "file", "line", "column", "message", "hint"} == set(findings[0])
    assert f"{file}:2:3: error[config.unknown_key]" in covey("config", "check", str(file)).stdout
    assert covey("config", "show", str(file)).exit_code == 10


def test_the_key_file_is_checked_where_a_start_would_need_it(covey, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file, key = tmp_path / "n1.yaml", tmp_path / "n1.key"
    file.write_text(GOOD.replace("{mode: open}", "{key: {file: n1.key}}"))

    def found() -> tuple[int, list[tuple[str, int, int]]]:
        answer = covey("config", "check", str(file), "-o", "json")
        return answer.exit_code, [
            (one["code"], one["line"], one["column"]) for one in json.loads(answer.stdout)["data"]
        ]

    assert found() == (10, [("security.key_missing", 7, 24)])
    assert "covey node init" in covey("config", "check", str(file)).stdout
    assert not key.exists()
    started = covey("node", "start", str(file))
    assert started.exit_code == 10
    assert "security.key_missing" in started.stderr
    make_keys(key)
    assert found() == (0, [])
    key.chmod(0o640)
    assert found() == (10, [("security.key_mode", 7, 24)])
    assert f"chmod 600 {key}" in covey("config", "check", str(file)).stdout
    assert covey("node", "start", str(file)).exit_code == 10
    key.chmod(0o600)
    key.write_text(key.read_text().replace("secret: ", "secret: x"))
    assert found() == (10, [("security.key_malformed", 7, 24)])
    file.write_text(GOOD.replace("{mode: open}", "{mode: open, key: {file: n1.key}}"))
    assert found() == (0, [])
    assert covey("explain", "security.key_mode").exit_code == 0


CARD = """
from covey import IdentitySource, hookimpl

@hookimpl
def covey_identity_sources():
    return [IdentitySource("card", lambda value, folder: "card-7")]
"""


def test_identity_sources_of_other_packages_are_known_by_name(covey, tmp_path, install) -> None:  # type: ignore[no-untyped-def]
    install("covey-card", {"card.py": CARD}, {"covey": {"card": "card"}})
    file = tmp_path / "n1.yaml"
    for name, code in (("card", 0), ("crad", 10)):
        file.write_text(GOOD.replace("generated", name))
        assert covey("config", "check", str(file)).exit_code == code
    assert "'card'" in covey("config", "check", str(file)).stdout


def test_a_source_whose_plugin_does_not_load_is_refused_with_its_reason(covey, tmp_path, install) -> None:  # type: ignore[no-untyped-def]
    install("covey-card", {"card.py": "import no_such_driver\n" + CARD}, {"covey": {"card": "card"}})
    file = tmp_path / "n1.yaml"
    file.write_text(GOOD.replace("generated", "card"))
    answer = covey("config", "check", str(file))
    assert answer.exit_code == 10
    assert "no_such_driver" in answer.stderr
    file.write_text(GOOD)
    assert covey("config", "check", str(file)).exit_code == 0


def test_no_file(covey, tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert covey("config", "check", str(tmp_path / "none.yaml")).exit_code == 10
    assert covey("node", "start", str(tmp_path / "none.yaml")).exit_code == 10


def test_schema(covey) -> None:  # type: ignore[no-untyped-def]
    schema = json.loads(covey("config", "schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert json.loads(covey("config", "schema", "-o", "json").stdout)["data"] == schema


@pytest.mark.parametrize("code", sorted(errors.by_code()))
def test_every_error_is_explained(code: str, covey) -> None:  # type: ignore[no-untyped-def]
    answer = covey("explain", code, "-o", "json")
    assert answer.exit_code == 0
    assert json.loads(answer.stdout)["data"]["code"] == code


@pytest.mark.parametrize("number", sorted(errors.EXIT_CODES))
def test_every_exit_code_is_explained(number: int, covey) -> None:  # type: ignore[no-untyped-def]
    answer = covey("explain", str(number))
    assert answer.exit_code == 0
    assert errors.EXIT_CODES[number] in answer.stdout


def test_explain_as_it_was_printed_and_mistyped(covey) -> None:  # type: ignore[no-untyped-def]
    assert "read_only" in covey("explain", "[registry.read_only]").stdout
    answer = covey("explain", "registry.readonly")
    assert (answer.exit_code, "registry.read_only" in answer.stderr) == (4, True)
    assert "bus.no_daemon" in covey("explain").stdout


def test_version(covey) -> None:  # type: ignore[no-untyped-def]
    assert covey("version").stdout.startswith("covey ")

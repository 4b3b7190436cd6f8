"""What a user sees when something fails: code, message, hint, exit code; never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from covey import errors
from covey.bus.messages import NodeInfo
from covey.cli.root import root


@pytest.mark.parametrize(
    "error",
    [
        errors.ReadOnly("writes are closed", "wait"),
        errors.NotFound("no such thing"),
        errors.Denied("not yours"),
        errors.Timeout("too late"),
        errors.IdentityClone("two of you"),
        errors.NoDaemon("nobody there"),
        errors.InvalidFile("bad file"),
        errors.NotImplementedYet("later (SPEC 1)"),
    ],
)
def test_errors_keep_their_code_and_exit_code(error: errors.CoveyError, covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["registry", "status"] = error
    text = covey("registry", "status")
    assert text.exit_code == error.exit_code
    assert text.stdout == ""
    assert text.stderr.startswith(f"error[{error.code}]: {error.message}")
    assert ("hint: wait" in text.stderr) is bool(error.hint)

    printed = covey("registry", "status", "-o", "json")
    assert printed.exit_code == error.exit_code
    assert printed.stderr == ""
    assert json.loads(printed.stdout) == {
        "schema": "covey/error/1",
        "error": {"code": error.code, "message": error.message, "hint": error.hint},
    }


def test_usage_errors_are_json_too(covey) -> None:  # type: ignore[no-untyped-def]
    for words in (["-o", "json", "nod"], ["registry", "get", "-o", "json"], ["tap", "--kind", "x", "--output=json"]):
        answer = covey(*words)
        assert answer.exit_code == 2
        assert json.loads(answer.stdout)["error"]["code"] == "core.usage"


def test_a_mistyped_word_gets_a_suggestion(covey) -> None:  # type: ignore[no-untyped-def]
    assert "Did you mean registry?" in covey("regisry").stderr
    assert "Did you mean status" in covey("cluster", "statsu").stderr


def test_no_word_at_all_gets_the_help_and_no_error(covey) -> None:  # type: ignore[no-untyped-def]
    for words in ([], ["registry"], ["network"]):
        answer = covey(*words)
        assert (answer.exit_code, answer.stdout) == (2, "")
        assert answer.stderr.startswith("Usage: covey")
        assert "error[" not in answer.stderr
    assert json.loads(covey("registry", "-o", "json").stdout)["error"]["message"] == "Missing command."


def test_version(covey) -> None:  # type: ignore[no-untyped-def]
    for option in ("--version", "-V"):
        answer = covey(option)
        assert (answer.exit_code, answer.stdout.split()[0]) == (0, "covey")


def test_a_value_that_looks_like_an_option_is_explained(covey) -> None:  # type: ignore[no-untyped-def]
    assert "behind `--`" in covey("registry", "put", "/app/x", "-5").stderr
    assert "behind `--`" not in covey("registry", "put", "/app/x", "--nope").stderr


def test_an_error_of_the_system_names_the_file_and_no_number(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["registry", "status"] = lambda: (_ for _ in ()).throw(FileNotFoundError(2, "No such file", "/nowhere"))
    assert covey("registry", "status").stderr == "error[core.error]: /nowhere: No such file\n"


def test_characters_that_the_terminal_cannot_show_are_escaped() -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "covey.cli", "explain", "gr\u00fcn\u2190", *words]
        environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": "ascii"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    text = run()
    assert (text.returncode, "gr\\xfcn\\u2190" in text.stderr) == (4, True), text.stderr
    told = run("-o", "json").stdout
    assert told.isascii()
    assert "gr\u00fcn\u2190" in json.loads(told)["error"]["message"]


def test_the_list_of_codes_holds_whole_sentences(covey) -> None:  # type: ignore[no-untyped-def]
    lines = covey("explain").stdout.splitlines()
    [found] = [line for line in lines if line.startswith("dcm.token_needed ")]
    assert found.endswith("prints on the new node")
    assert not [line for line in lines if line.endswith(".")]


def test_no_daemon(covey, tmp_path) -> None:  # type: ignore[no-untyped-def]
    answer = covey("--state", str(tmp_path), "node", "ls")
    assert answer.exit_code == 9
    assert "error[bus.no_daemon]" in answer.stderr
    assert str(tmp_path) in answer.stderr
    assert covey("--state", str(tmp_path), "tap").exit_code == 9
    assert covey("--state", str(tmp_path), "cluster", "wait-for", "online").exit_code == 9


def test_a_bug_shows_no_traceback(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["liveness", "status"] = {"view": 7}
    answer = covey("liveness", "status")
    assert answer.exit_code == 1
    assert "error[core.internal]" in answer.stderr
    assert "log" in answer.stderr
    assert "Traceback" not in answer.output


def test_a_bug_shows_its_traceback_when_asked(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["liveness", "status"] = {"view": 7}
    assert "Traceback" in covey("liveness", "status", env={"COVEY_DEBUG": "1"}).stderr


@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 141)])
def test_interrupts_are_quiet(raised: BaseException, code: int, covey, bus) -> None:  # type: ignore[no-untyped-def]
    def fail(**given: object) -> None:
        raise raised

    bus.answers["registry", "status"] = fail
    answer = covey("registry", "status")
    assert (answer.exit_code, answer.output) == (code, "")


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{{ sleep 0.2; {sys.executable} -P -m covey.cli explain; }} | head -c 0; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (141, "")


def test_every_exception_class_has_words_and_an_exit_code() -> None:
    for code, known in errors.by_code().items():
        assert known.exit_code in errors.EXIT_CODES, code
        assert known.__doc__, code


def test_the_root_is_a_command() -> None:
    assert root.name == "covey"


def test_what_an_offline_node_does_not_run_is_not_called_unknown(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers |= {("registry", "get"): errors.NoService("none"), ("nosuch", "ping"): errors.NoService("none")}
    answer = covey("registry", "get", "/app/a")
    assert (answer.exit_code, "error[dcm.not_online]" in answer.stderr) == (5, True)
    assert covey("ping", "nosuch").exit_code == 4


def test_a_node_in_no_cluster_says_how_it_comes_into_one(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.node = NodeInfo()
    bus.answers["registry", "status"] = errors.NoService("none")
    answer = covey("registry", "status")
    assert (answer.exit_code, "covey cluster define NAME" in answer.stderr) == (5, True)
    registry = {"phase": "offline", "writable": False, "servers": []}
    bus.answers["dcm", "cluster_status"] = {"quorate": False, "nodes": [], "view": None, "registry": registry}
    answer = covey("cluster", "status")
    assert (answer.exit_code, "covey cluster define NAME" in answer.stderr) == (3, True)
    assert "may be old" not in answer.stderr

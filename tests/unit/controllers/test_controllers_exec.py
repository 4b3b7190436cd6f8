"""The controller `exec`: what commands print, the files that make classes, and real commands of this test's own."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from covey.controllers import commands
from covey.controllers.classes import Field
from covey.controllers.contract import Failed, Node, Resource
from covey.controllers.exec import Exec, formats
from covey.controllers.exec.file import filled, read_file
from covey.controllers.options import findings_in_files, make, options_model
from covey.errors import PluginError
from covey.testing import check_controller
from pydantic import BaseModel

# --- what commands print ------------------------------------------------------------------------------------


def test_words_as_a_sensor_prints_them() -> None:
    assert formats.words('Int32=10 String="two words" Empty= flag') == {
        "Int32": "10",
        "String": "two words",
        "Empty": "",
        "flag": None,
    }
    with pytest.raises(ValueError, match="quotation"):
        formats.words('A="x')


def test_the_output_of_a_nagios_plugin() -> None:
    printed = (
        "DISK OK - free: / 3326 MB (56%) | /=2643MB;5948;5958;0;5968 'two words'=1,5c;;; \n"
        "/ 15272 MB (77%)\nmore | '/it''s'=30%;;;0;100\nrta=0.5ms nope=U t=2500ns"
    )
    text, found = formats.nagios(printed)
    assert text == "DISK OK - free: / 3326 MB (56%)\n/ 15272 MB (77%)\nmore"
    assert found == {
        "/": "2643MiB",
        "two words": "1.5",
        "/it's": "30%",
        "rta": "0.5ms",
        "nope": "U",
        "t": "2.5us",
    }
    assert formats.nagios("") == ("", {})


@pytest.mark.parametrize(
    ("written", "kind", "unit", "value"),
    [
        ("2643MiB", "uint64", "By", 2643 * 2**20),
        ("0.5ms", "float64", "s", 0.0005),
        ("0.5ms", "duration", "", 0.0005),
        ("30%", "uint32", "%", 30),
        ("30%", "uint32", "", 30),
        ("12.0", "int32", "", 12),
        ("12.5", "int32", "", 12.5),
        ("1e3", "float64", "", 1000.0),
        ("12MiB", "float64", "s", "12MiB"),
        ("true", "bool", "", True),
        ("maybe", "bool", "", "maybe"),
        ("NaN", "float64", "", None),
        ("", "uint32", "", None),
        ("12", "string", "", "12"),
        (12, "string", "", 12),
    ],
)
def test_text_becomes_the_type_of_its_attribute(written: Any, kind: Any, unit: str, value: Any) -> None:
    got = formats.fitted(written, Field(name="x", type=kind, unit=unit))
    assert got == value and type(got) is type(value)


OPENMETRICS = r"""# HELP temp Temperature.
# TYPE temp gauge
temp{chip="cpu",where="a\"b\\c\nd"} 41.5
temp{chip="gpu"} 60 1395066363000
up 1 # {trace="x"} 0.5
big_bucket{le="+Inf"} NaN
# EOF
"""


def test_metrics_are_picked_by_name_and_labels() -> None:
    samples = formats.openmetrics(OPENMETRICS)
    assert samples[0].labels == {"chip": "cpu", "where": 'a"b\\c\nd'}

    def pick(written: str) -> str | None:
        return formats.picked(samples, formats.wanted_sample(written))

    assert [pick('temp{chip="gpu"}'), pick("up"), pick("down"), pick("big_bucket")] == ["60", "1", None, "NaN"]
    with pytest.raises(ValueError, match="2 samples of temp fit"):
        pick("temp")
    for wrong in ("temp{chip=cpu} 1", "what is this"):
        with pytest.raises(ValueError, match=r"labels|line 1"):
            formats.openmetrics(wrong)


def test_what_a_discovery_prints() -> None:
    assert list(formats.many('A=1 B="x y"\n\nA=2\n')) == [{"A": "1", "B": "x y"}, {"A": "2"}]
    assert list(formats.many(' [{"A": 1}]')) == [{"A": 1}]
    for wrong in ("[1]", "[", "[" * 100_000):
        with pytest.raises(ValueError):
            list(formats.many(wrong))


# --- the files ----------------------------------------------------------------------------------------------

HEAD = """covey: 1
controller: exec
classes:
  Raid:
    version: 1
    key: [Name]
    attributes:
      Name: {type: string, kind: persistent}
      Level: {type: string, kind: persistent, default: raid1}
      Used: {type: uint64, kind: dynamic, unit: By}
      Code: {type: int32, kind: dynamic, default: 0}
"""
ACTIONS = """    actions:
      Check: {arguments: {Hard: {type: bool, default: false}}, result: {Said: {type: string}}, deadline: 2s}
"""
EXEC = """    exec:
      resources: [{Name: md 0}]
      command: [sh, -c, 'echo Used=12KiB']
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def one(text: str, name: str = "raid.yaml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return one


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        (HEAD, 4, 3, "has no 'exec'"),
        (HEAD + "    exec: {command: [x]}\n", 12, 5, "either 'resources' or 'discover'"),
        (HEAD + "    exec: {resources: [{Name: a}]}\n", 12, 5, "'Used' is dynamic, and there is no 'command'"),
        (HEAD + EXEC.replace("{Name: md 0}", "{Level: x}"), 13, 19, "'Name' of the key is not there"),
        (HEAD + EXEC.replace("md 0}", "a, Usd: 1}"), 13, 29, "'Usd' is not declared"),
        (HEAD + EXEC.replace("sh,", "'',"), 14, 16, "a command begins with a program"),
        (HEAD + EXEC.replace("12KiB", "{key.Nam}"), 14, 25, "nothing fills {key.Nam}"),
        (HEAD + EXEC + "      format: values2\n", 15, 15, "'format' cannot be 'values2'"),
        (HEAD + EXEC + "      map: {Usd: x}\n", 15, 13, "'Usd' is not declared"),
        (HEAD + EXEC + "      format: openmetrics\n      map: {Used: 'a b'}\n", 16, 19, "'a b' is no metric"),
        (HEAD + EXEC + "      exit: Level\n", 15, 13, "'Level' is no dynamic attribute"),
        (HEAD + EXEC + "      timeout: 5\n", 15, 16, "a duration needs a unit"),
        (HEAD + EXEC + "      actions: {Reset: [x]}\n", 15, 17, "'Reset' is not declared under 'actions'"),
        (HEAD + ACTIONS + EXEC, 13, 7, "the action 'Check' has no command"),
        (HEAD + ACTIONS + EXEC + "      actions: {Check: ['{Hrd}']}\n", 17, 25, "nothing fills {Hrd}"),
        (HEAD.replace("key: [Name]", "key: [Nam]") + EXEC, 6, 11, "which is not declared under 'attributes'"),
    ],
)
def test_mistakes_in_a_file_have_their_place(write: Write, text: str, line: int, column: int, words: str) -> None:
    found, findings = read_file(write(text))
    assert found is None
    (one,) = [each for each in findings if words in each.message]
    assert (one.line, one.column) == (line, column)


def test_all_files_are_one_controller(write: Write) -> None:
    folder = write(HEAD + EXEC).parent
    write(HEAD + EXEC, "again.yaml")
    write(HEAD.replace("uint64", "uint65") + EXEC, "bad.yaml")
    with pytest.raises(PluginError) as caught:
        make(Exec, {"files": ["raid.yaml", "again.yaml", "bad.yaml"]}, folder).describe()
    assert "bad.yaml:10:20: unknown attribute type 'uint65'" in caught.value.message
    assert f"{folder}/again.yaml: the class Raid is in another of the files, too" in caught.value.message
    assert make(Exec).describe() == {}
    (one,) = findings_in_files(options_model(Exec) or BaseModel, {"files": ["raid.yaml", "bad.yaml"]}, folder)
    assert (one.file, one.line) == (str(folder / "bad.yaml"), 10), "what `covey config check` adds"


# --- running ------------------------------------------------------------------------------------------------


def test_words_of_a_command_are_never_cut() -> None:
    command = ("say", "{key.Name}={Hard}", "{{key.Name}}", "{print $1}", "{L}")
    key, arguments = {"Name": "a b; 'c'"}, {"Hard": True, "L": ["x", 1]}
    assert filled(command, key, arguments) == ["say", "a b; 'c'=true", "{key.Name}", "{print $1}", "x,1"]


def test_a_class_of_commands(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    run = """      map: {Used: used}
      format: nagios
      exit: Code
      actions: {Check: [sh, -c, 'echo "Said=\\"$1 $COVEY_NODE $COVEY_CLUSTER $HERE\\""', sh, '{key.Name}={Hard}']}
"""
    script = "      command: [./check, '{key.Name}']\n"
    file = write(HEAD + ACTIONS + EXEC[: EXEC.index("      command")] + script + run)
    check = file.with_name("check")
    check.write_text('#!/bin/sh\necho "RAID $1 $COVEY_KEY_Name|used=12KB;1;2 x=1"\nexit 2\n')
    check.chmod(0o755)
    monkeypatch.setenv("HERE", "not passed on")
    with pytest.raises(AssertionError) as caught:
        check_controller(Exec, {"files": ["raid.yaml"]}, file.parent)
    (problem,) = str(caught.value).splitlines()[1:]
    assert "Raid reports 'x', which its description does not declare" in problem
    check.write_text(check.read_text().replace(" x=1", ""))
    (one,) = check_controller(Exec, {"files": ["raid.yaml"]}, file.parent)
    assert one["key"] == {"Name": "md 0"}
    assert one["attributes"] == {"Used": 12 * 1024, "Code": 2}
    made = make(Exec, {"files": [str(file)]}, node=Node(3, "n3", "lab"))
    made.describe()
    resource = Resource("Raid", {"Name": "md 0"}, "x")
    assert made.run(resource, "Check", {"Hard": True}) == {"Said": "md 0=true 3 lab "}
    check.write_text("#!/bin/sh\necho gone wrong >&2; echo more >&2; exit 4\n")
    file.write_text(file.read_text().replace("      exit: Code\n", ""))
    again = make(Exec, {"files": [str(file)]})
    again.describe()
    with pytest.raises(Failed, match=r"^\./check: exit code 4: gone wrong$"):
        again.read(resource)


@pytest.mark.parametrize(
    ("section", "printed", "value"),
    [
        ("resources: [{Name: a}], format: json, map: {Used: disk.used}", '{"disk": {"used": 5}, "Code": 1}', 5),
        (
            "resources: [{Name: a}], format: openmetrics, map: {Used: 'u{n=\"{key.Name}\"}'}",
            'u{n="b"} 1\nu{n="a"} 5',
            5,
        ),
        ("resources: [{Name: a}]", "Used=5KiB Code=1", 5120),
        ("discover: [echo, Name=a Level=x]", "Used=5", 5),
    ],
)
def test_the_formats(write: Write, section: str, printed: str, value: int) -> None:
    file = write(HEAD + f"    exec: {{command: [cat, out], {section}}}\n")
    write(printed, "out")
    (one,) = check_controller(Exec, {"files": [str(file)]})
    assert one["attributes"]["Used"] == value


def test_the_example_reads_a_folder(tmp_path: Path) -> None:
    example = Path(__file__).parents[3] / "examples" / "exec-spool"
    for name in ("spool.yaml", "spool"):
        shutil.copy(example / name, tmp_path)
    file = tmp_path / "spool.yaml"
    (tmp_path / "folder").mkdir()
    file.write_text(file.read_text().replace("[{Path: /var/spool}, {Path: /var/tmp}]", "[{Path: folder}]"))
    (tmp_path / "folder" / "new").touch()
    (tmp_path / "folder" / "old").touch()
    os.utime(tmp_path / "folder" / "old", (0, 0))
    (one,) = check_controller(Exec, {"files": [str(file)]})
    assert one["attributes"]["Files"] == 2 and one["attributes"]["Size"] % 1024 == 0
    controller = make(Exec, {"files": [str(file)]})
    controller.describe()
    assert controller.run(Resource("Spool", {"Path": "folder"}, "x"), "Clean", {"Days": 30}) == {}
    assert [one.name for one in (tmp_path / "folder").iterdir()] == ["new"]


def test_a_command_ends_at_its_deadline_with_all_it_started(tmp_path: Path) -> None:
    env = commands.environment(Node(), None)
    script = "mkfifo f; cat f & wait"  # ends when somebody writes to the pipe: nobody does
    began = time.monotonic()
    with pytest.raises(Failed, match=r"sh did not end within 0\.3 s; it was killed, with all it started"):
        commands.run(["sh", "-c", script], env=env, timeout=0.3, folder=tmp_path)
    assert time.monotonic() - began < 30
    with pytest.raises(OSError, match="No such device"):  # once nobody reads from the pipe any more
        while time.monotonic() - began < 30:
            os.close(os.open(tmp_path / "f", os.O_WRONLY | os.O_NONBLOCK))


def test_what_a_command_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    env = commands.environment(Node(), None)
    os.mkfifo(tmp_path / "f")
    done = commands.run(["sh", "-c", "cat f & echo started"], env=env, timeout=30, folder=tmp_path)
    assert (done.code, done.output) == (0, "started\n")
    with (tmp_path / "f").open("wb"):
        pass  # it ends now
    assert commands.run(["cat"], env=env, timeout=30, entered="hello").output == "hello"
    with pytest.raises(Failed, match="prints more than 65536 bytes"):
        commands.run(["yes"], env=env, timeout=30)
    with pytest.raises(Failed, match=r"/no/such cannot be started: No such file"):
        commands.run(["/no/such"], env=env, timeout=30)
    assert commands.run(["sh", "-c", "kill -9 $$"], env=env, timeout=30).reason == "ended by signal 9"

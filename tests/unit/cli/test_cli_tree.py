"""The command tree is the one that INTERFACES names, and every command in it teaches."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from covey.cli.root import root
from covey.cli.unbuilt import MARK, TAP, VERBS

NAMED = {
    "lab": "up down status kill stop start pause resume cut heal clone swap-disk run",
    "node": "init start prepare define undefine forget modify ls show online offline move verdict boot-log install",
    "cluster": "define undefine modify ls status online offline wait-for views balance",
    "registry": "status get put delete ls txn watch define-server undefine-server online offline export import backup "
    "restore force",
    "network": "define modify undefine ls priority explain traffic measure",
    "subnet": "define modify undefine ls",
    "address": "define modify undefine ls",
    "liveness": "status paths",
    "group": "ls show watch join expel state propose broadcast transcript",
    "resource": "classes class ls show set define undefine run watch refresh",
    "condition": "define undefine ls show test",
    "response": "define undefine ls show test",
    "plugin": "ls why block unblock new check test docs",
    "config": "check show schema",
    "bus": "status",
    "log": "audit show",
}
ALONE = "components ping tap top reload doctor explain version"


def walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, f"{path} {name} is listed and not there"
            yield from walk(found, f"{path} {name}")


TREE = dict(walk(root, "covey"))
LEAVES = {path: found for path, found in TREE.items() if not isinstance(found, click.Group)}


def test_every_verb_that_is_promised_exists() -> None:
    promised = {f"covey {noun} {verb}" for noun, verbs in NAMED.items() for verb in verbs.split()}
    promised |= {f"covey {verb}" for verb in ALONE.split()}
    assert promised == set(LEAVES)


@pytest.mark.parametrize("path", sorted(TREE))
def test_help_teaches(path: str) -> None:
    found = TREE[path]
    context = click.Context(found, info_name=path)
    text = found.get_help(context)
    assert found.help, f"{path} has no help"
    assert len(found.help.split()) > 4, f"the help of {path} says nothing"
    if path in LEAVES:
        examples = getattr(found, "examples", [])
        assert examples, f"{path} has no example"
        for example in examples:
            assert " ".join(path.split()[1:]) in example
            assert example in text


@pytest.mark.parametrize("path", sorted(LEAVES))
def test_every_verb_takes_the_common_options(path: str) -> None:
    names = {option for parameter in LEAVES[path].params for option in parameter.opts}
    assert {"-o", "--state", "--timeout", "--cluster"} <= names


@pytest.mark.parametrize("path", [f"{noun} {verb}".strip() for noun, verbs in VERBS.items() for verb in verbs])
def test_what_is_not_built_says_so(path: str, covey) -> None:  # type: ignore[no-untyped-def]
    noun, _, verb = path.rpartition(" ")
    assert MARK in covey(*noun.split(), "--help").stdout
    answer = covey(*path.split(), "x", "--whatever", "1")
    assert answer.exit_code == 1
    assert answer.stdout == ""
    assert "error[core.not_implemented]" in answer.stderr
    assert f"SPEC {VERBS[noun][verb].spec}" in answer.stderr


def test_no_verb_is_both_built_and_to_come() -> None:
    for path, command in LEAVES.items():
        noun, _, verb = path.removeprefix("covey ").rpartition(" ")
        assert getattr(command, "built", True) is (verb not in VERBS.get(noun, {})), path


@pytest.mark.parametrize("verb", sorted(TAP))
def test_verbs_of_recordings_are_not_built(verb: str, covey) -> None:  # type: ignore[no-untyped-def]
    answer = covey("tap", verb)
    assert answer.exit_code == 1
    assert f"covey tap {verb}" in answer.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["tap", "--pairs"],
        ["tap", "--sample", "1/10"],
        ["config", "check", "x.yaml", "--deep"],
    ],
)
def test_options_that_are_not_built_are_refused(words: list[str], covey) -> None:  # type: ignore[no-untyped-def]
    answer = covey(*words, "-o", "json")
    assert answer.exit_code == 1
    assert '"core.not_implemented"' in answer.stdout

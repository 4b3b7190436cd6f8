"""Whatever the bytes of a file are, the answer is findings or settings; and nothing heavy is imported before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from covey import errors
from covey.config.codes import FINDINGS
from covey.config.document import read_bytes
from covey.config.findings import Finding, render_all
from covey.config.node import NodeConfig, across
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

GOOD = (Path(__file__).parent / "bad" / "everything_at_once.yaml").read_bytes()
YAML = st.text(alphabet="ab01 \n\t:-?[]{},'\"|>&*!%#@`~<=.$\\/${env:A}é節\x85\u2028\ufeff\r", max_size=120)
TOKENS = st.lists(
    st.sampled_from(
        [
            "node",
            "name",
            "security",
            "mode",
            "open",
            "controllers",
            "adapters",
            "127.0.0.1/8",
            "identity",
            "file",
            "port",
            "1",
            "1.5",
            "~",
            "5s",
            ": ",
            ":",
            "\n",
            "\n  ",
            "\n    ",
            "- ",
            "[",
            "]",
            "{",
            "}",
            ", ",
            "&a ",
            "*a",
            "<<",
            "!!int ",
            "'",
            '"',
            "|\n",
            "${env:A}",
            "${env:B}",
            "---\n",
            "...\n",
            "? ",
            "#",
            '"\\ud800"',
            ".inf",
            ".nan",
        ]
    ),
    max_size=40,
).map("".join)


def answer(data: bytes) -> None:
    context = {"controllers": {"host"}, "identity_sources": {"file"}, "folder": Path("/f")}
    found, findings = read_bytes(data, NodeConfig, file="f.yaml", env={"A": "1"}, context=context, check=across)
    assert (found is None) == any(finding.severity == "error" for finding in findings)
    assert isinstance(render_all(findings), str)
    for finding in findings:
        assert isinstance(finding, Finding)
        assert finding.code in FINDINGS or finding.code in errors.by_code()
        assert finding.line >= 1
        assert 1 <= finding.column <= len(finding.source) + 1
        assert finding.message


HARD = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@HARD
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    answer(data)


@HARD
@given(YAML)
def test_anything_like_yaml(text: str) -> None:
    answer(text.encode())


@HARD
@given(TOKENS)
def test_anything_like_a_node_file(text: str) -> None:
    answer(text.encode())


@HARD
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 30), st.binary(max_size=4))
def test_a_file_with_a_hole_or_a_patch(start: int, length: int, patch: bytes) -> None:
    answer(GOOD[:start] + patch + GOOD[start + length :])


@pytest.mark.parametrize("size", [0, 1, 100, 5000])
def test_long_runs(size: int) -> None:
    for piece in ("a", "[", "{", "- ", "a: ", "'", "\n", "&a ", "*a ", "!", "? ", "9", "0x", "${env:", "\U0001f600"):
        answer((piece * size).encode())


def test_asking_for_help_imports_neither_pydantic_nor_yaml() -> None:
    code = (
        "import sys, covey.config\n"
        "from covey.config import Finding, check_node, load_node, name_problem, node_schema, render_all\n"
        "heavy = {'pydantic', 'yaml', 'pydantic_core'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert check_node('no/such/file')[0].code == 'config.no_file'\n"
        "assert 'pydantic' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

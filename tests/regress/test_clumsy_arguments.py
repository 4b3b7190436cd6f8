"""A closed standard input met a bug; so did a lab folder whose name no file can have, and one that is no Unicode text.

A node could be given an address that no adapter has, and `group watch` waited for a group that cannot be.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from covey.cli.lab.folder import make_folder
from covey.components.dcm.modifying import _addresses
from covey.components.groups import wishes
from covey.errors import Refused, UsageError


def test_a_closed_standard_input_is_an_empty_one() -> None:
    covey = [sys.executable, "-m", "covey.cli", "registry", "import", "-"]
    closed = ["sh", "-c", '"$@" <&-', "sh", *covey]
    ended = subprocess.run(closed, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 10 and "core.internal" not in ended.stderr


@pytest.mark.parametrize("name", ["x" * 300, os.fsdecode(b"lab\xff")])
def test_a_folder_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        make_folder(tmp_path / name)
    assert refused.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["0.0.0.0/0", "255.255.255.255/32", "224.0.0.1/8", "127.1.0.0/16", "127.1.0.3", "n3"])
def test_a_node_gets_an_address_of_an_adapter(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        _addresses(["127.1.0.3/16", text])
    assert refused.value.hint
    assert _addresses(["127.1.0.3/16"]) == ("127.1.0.3/16",)


def test_a_name_that_no_group_can_have_is_refused() -> None:
    wishes.check_name("db")
    for name in ("a b", "", "x" * 500):
        with pytest.raises(UsageError):
            wishes.check_name(name)

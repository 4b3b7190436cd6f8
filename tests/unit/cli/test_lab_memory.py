"""A lab that this machine has no memory for is refused before anything is written."""

from __future__ import annotations

import pytest
from covey.cli.lab.memory import must_fit
from covey.errors import Refused


def test_one_node_fits_and_a_million_do_not() -> None:
    must_fit(1, "process")
    with pytest.raises(Refused, match="1000000 nodes with isolation inline want"):
        must_fit(1_000_000, "inline")

"""A verb that is not built takes any arguments, one named `self` too: it was answered as a bug of covey's."""

from __future__ import annotations

import pytest
from covey.components.dcm.unbuilt import Unbuilt
from covey.errors import NotImplementedYet


@pytest.mark.parametrize("verb", [name for name in vars(Unbuilt) if not name.startswith("_")])
def test_any_arguments_are_told_that_it_is_not_built(verb: str) -> None:
    with pytest.raises(NotImplementedYet):
        getattr(Unbuilt(), verb)(self=1, anything=2)

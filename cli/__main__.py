"""`python -m covey.cli`: the same as the `covey` script, for processes that start one another."""

from __future__ import annotations

from . import main

if __name__ == "__main__":
    main()

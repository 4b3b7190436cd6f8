# Each target works alone as the first command after a clone: it makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests start hundreds of Pythons: each would compile the package anew where the environment forbids keeping it compiled.
unexport PYTHONDONTWRITEBYTECODE
INSTALLED := $(VENV)/.installed

.PHONY: help demo test check sim sim-long sim-liveness sim-hours soak chaos moves crash-points clean

SEEDS ?= 200
FIRST ?= 0
HOURS ?= 20

help:
	@echo "make demo    a three-node cluster on this machine, shown at work (under a minute)"
	@echo "make test    all tests, in parallel"
	@echo "make check   lint, types, floors"
	@echo "make sim     200 minutes of random faults on the replicated registry, simulated (minutes; SEEDS=, FIRST=)"
	@echo "make sim-long SEEDS=2000   the same without pytest; every failure is listed, the counts go to $(VENV)/storms.txt"
	@echo "make sim-liveness   10 to 10,000 nodes whose members die, lose messages, come and go, simulated (minutes)"
	@echo "make sim-hours HOURS=20   hours of all faults on the membership of ten nodes, simulated (two minutes of work each; FIRST=)"
	@echo "make soak    ten million messages through one broker: memory flat, all accounted for (minutes)"
	@echo "make chaos   five minutes of broken registry servers, real ones, under load; every answer judged"
	@echo "make moves   200 moves of a node between two clusters under load, with random kills (ten minutes)"
	@echo "make crash-points   daemons killed at every numbered step of define, join, move, undefine, modify (minutes)"
	@echo "make clean   remove the environment and what tools left"

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

# Compiled here, once and by two, before each of the workers that start together does it (what is wrong they will say).
COMPILED := tests/__pycache__

$(COMPILED): | $(INSTALLED)
	@$(BIN)/python -m compileall -q -j 2 *.py bus cli components config controllers plugins tests/support
	@for part in tests/unit --ignore=tests/unit; do $(BIN)/pytest -qq --collect-only $$part >/dev/null 2>&1 & done; wait

test: $(INSTALLED) | $(COMPILED)
	$(BIN)/pytest -n auto

# mypy must see the package under its own name: a link gives the root of the checkout that name.
check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p $(VENV)/src && ln -sfn "$(CURDIR)" $(VENV)/src/covey
	cd $(VENV)/src && MYPYPATH=. ../bin/mypy --strict --explicit-package-bases --exclude '/(tests|examples|bench|docs|build|\.venv)/' covey
	$(BIN)/pytest -q tests/test_meta.py

sim: $(INSTALLED)
	rm -rf $(VENV)/storms
	COVEY_SIM_SEEDS=$(SEEDS) COVEY_SIM_FIRST=$(FIRST) COVEY_SIM_REPORT="$(CURDIR)/$(VENV)/storms" $(BIN)/pytest -q -n auto tests/sim/test_registry_storm.py
	$(BIN)/python tests/support/registry_storm.py --merge $(VENV)/storms

sim-long: $(INSTALLED)
	$(BIN)/python tests/support/registry_storm.py $(FIRST) $$(($(FIRST) + $(SEEDS))) $(VENV)/storms.txt

sim-liveness: $(INSTALLED)
	COVEY_SIM_LONG=1 $(BIN)/pytest -q -n auto tests/sim/test_liveness_faults.py tests/sim/test_liveness_storm.py
	for n in 10 100 1000 10000; do $(BIN)/python tests/support/liveness_scale.py $$n || exit 1; done

sim-hours: $(INSTALLED)
	$(BIN)/python tests/support/liveness_storm.py $(FIRST) $$(($(FIRST) + $(HOURS))) 10

soak: $(INSTALLED)
	$(BIN)/python bench/soak.py

chaos: $(INSTALLED)
	$(BIN)/python bench/registry_chaos.py

moves: $(INSTALLED)
	$(BIN)/python bench/dcm.py --isolation process --chaos 200

crash-points: $(INSTALLED)
	$(BIN)/python bench/dcm_crashes.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

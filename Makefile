# Everything runs from here: `make demo` and `make test` need Python 3.11 to 3.13 (tried: 3.11) and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test test-slow test-exhaustive mutants lint types docs bench clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "make: needs Python 3.11 to 3.13, found %d.%d; set PYTHON=python3.11" % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)  ## search, retrain, evaluate and export on handwritten digits, about a minute or two
	$(BIN)/python run.py

test: $(READY)  ## unit tests, meant for 3 minutes on 2 quiet cores
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not exhaustive" tests

test-slow: $(READY)  ## whole runs and the like, half an hour or more
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not exhaustive" tests

test-exhaustive: $(READY)  ## long repetitions of what the others sample, an hour or more
	$(BIN)/python -m pytest -n 2 --dist worksteal -m exhaustive tests

mutants: $(READY)  ## mutation testing, run by hand: an hour or more on 2 quiet cores; a stopped run continues
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,mutants]'
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)  ## the pages as a site, build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(READY)  ## seconds and memory of a search step in each form, under 10 minutes on 2 cores
	$(BIN)/python benchmarks/step_time.py

clean:
	rm -rf .venv outputs multirun build *.egg-info

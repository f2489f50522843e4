# Everything on a fresh machine: make quickstart, make test.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Errors are shown, warnings are not.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c requirements/constraints.txt
SOURCES := pyproject.toml requirements/constraints.txt
export OMP_NUM_THREADS ?= 1

.NOTPARALLEL: # two installations at once would spoil each other
.PHONY: help quickstart test test-slow lint docs tensorboard notebooks clean

help:
	@echo "make quickstart   train on MovieLens 100K and print the table"
	@echo "make test         run the tests, except the slow ones"
	@echo "make test-slow    run the slow tests: long trainings, killed processes, notebooks, the wheel"
	@echo "make lint         format, lint and type checks"
	@echo "make docs         build the documentation site in build/docs"
	@echo "make tensorboard  look at the runs in lightning_logs/"
	@echo "make notebooks    run the notebooks; read them in build/notebooks"

quickstart: $(VENV)/.installed
	@launchers/00_quickstart.sh

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow" $(TESTS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile -m slow $(TESTS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check src tests benchmarks docs notebooks
	$(BIN)/ruff check src tests benchmarks docs notebooks
	$(BIN)/mypy
	$(BIN)/shellcheck launchers/*.sh benchmarks/*.sh .ci/run

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "build/docs/index.html"

tensorboard: $(VENV)/.installed
	$(BIN)/tensorboard --logdir lightning_logs

notebooks: $(VENV)/.installed-dev
	@mkdir -p build/notebooks
	$(BIN)/jupyter execute --output='../build/notebooks/{notebook_name}' notebooks/*.ipynb

$(VENV)/bin/pip: # the last thing that venv makes
	@$(PYTHON) -c 'import sys; sys.exit("matinee needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + "; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(SOURCES) | $(VENV)/bin/pip
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: $(SOURCES) | $(VENV)/bin/pip
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(SOURCES) | $(VENV)/bin/pip
	$(INSTALL) -e '.[docs]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV)

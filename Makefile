# Two commands matter: `make demo` and `make test`. Both do all their set-up themselves; a second run installs nothing.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
export ZELO_HOME ?= $(CURDIR)/.zelo
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# Ctrl-C reaches the command, which says what it does; make adds no line of its own to its exit code 130.
stoppable = trap : INT; $(1) || { code=$$?; [ $$code -eq 130 ] || exit $$code; }

.PHONY: demo up test test-all setup setup-dev check clean

demo: setup ## a living sample: text is judged, Elo scores settle, a page shows it
	@$(call stoppable,$(PY) manage.py demo $(ARGS))

up: setup ## an empty server with its database, broker and workers
	@$(call stoppable,$(PY) manage.py up $(ARGS))

test: setup-dev check ## linters, types, import rules, tests
	@$(PY) -m pytest -n 2 --dist loadfile $(ARGS)

test-all: setup-dev check ## with the long tests as well
	@$(PY) -m pytest -n 2 --dist loadfile -m "" $(ARGS)

check: setup-dev
	@$(VENV)/bin/ruff check -q .
	@$(VENV)/bin/ruff format -q --check .
	@$(VENV)/bin/mypy --no-error-summary
	@$(VENV)/bin/lint-imports --no-logo > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }

setup: $(VENV)/installed
setup-dev: $(VENV)/installed-dev $(VENV)/browser

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "zelo needs Python 3.11 or newer; set PYTHON=python3.12, for example")'
	@$(PYTHON) -m venv $(VENV)

# The stamp comes last: an interrupted installation is begun again.
$(VENV)/installed: requirements.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing the pinned requirements (once, two to four minutes) ..."
	@$(PY) -m pip install -q -r requirements.txt
	@$(PY) -m pip install -q --no-deps --no-build-isolation -e .
	@$(PY) -c 'from scoring.numerics.design import adaptive; from scoring.numerics.fitting import fit; fit.compile_kernels(); adaptive.compile_kernels()'
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	@echo "installing what the tests need (once) ..."
	@$(PY) -m pip install -q -r requirements-dev.txt
	@touch $@

$(VENV)/browser: $(VENV)/installed-dev
	@$(PY) -m tests.browser.install
	@touch $@

clean: ## forget the environment, keep the data in .zelo
	@rm -rf $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache

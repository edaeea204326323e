# Two commands matter: `make demo` and `make test`. Both do all their set-up themselves; a second run installs nothing.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
export ZELO_HOME ?= $(CURDIR)/.zelo
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# Ctrl-C reaches the command, which says what it does; make adds no line of its own to its exit code 130.
stoppable = trap : INT; $(1) || { code=$$?; [ $$code -eq 130 ] || exit $$code; }

# What `make lock`, `make audit` and `make sbom` run has an environment of its own, so that it changes nothing in .venv.
TOOLS := .venv-tools
# Builds of torch for other hardware bring libraries of their own along.
OF_TORCH := torch|triton|nvidia-[a-z0-9-]*|cuda-[a-z]*

# Three processes keep two cores busy (four took 17.5 minutes where three took 16.4); tests.services_plugin decides which modules begin.
AT_ONCE := -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: demo up test test-all setup setup-dev check clean lock audit sbom

demo: setup ## a living sample: text is judged, Elo scores settle, a page shows it
	@$(call stoppable,$(PY) manage.py demo $(ARGS))

up: setup ## an empty server with its database, broker and workers
	@$(call stoppable,$(PY) manage.py up $(ARGS))

test: setup-dev check ## linters, types, import rules, tests
	@$(PY) -m pytest $(AT_ONCE) $(ARGS)

test-all: setup-dev check audit ## with the long tests and a look for known vulnerabilities as well
	@$(PY) -m pytest $(AT_ONCE) -m "" $(ARGS)

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
$(VENV)/installed: requirements.lock requirements-torch.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing the pinned requirements (once, two to four minutes) ..."
	@$(PY) -m pip install -q --require-hashes --no-deps -r requirements.lock
	@$(PY) -m pip install -q -r requirements-torch.txt
	@$(PY) -m pip install -q --no-deps --no-build-isolation -e .
	@$(PY) -c 'from scoring.numerics.design import rounds; from scoring.numerics.fitting import fit; fit.compile_kernels(); rounds.compile_kernels()'
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock $(VENV)/installed
	@echo "installing what the tests need (once) ..."
	@$(PY) -m pip install -q --require-hashes --no-deps -r requirements-dev.lock
	@touch $@

$(VENV)/browser: tests/browser/install.py $(VENV)/installed-dev
	@$(PY) -m tests.browser.install
	@touch $@

$(TOOLS)/installed: requirements-tools.txt
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install -q -r requirements-tools.txt
	@touch $@

# What is locked already stays, unless UPGRADE says otherwise: UPGRADE=--upgrade, or UPGRADE="--upgrade-package NAME".
compile = cp $(1).lock $(TOOLS)/$(1).txt && \
  $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate $(UPGRADE) \
    $(2) $(1).txt -o $(TOOLS)/$(1).txt && \
  awk '/^[a-zA-Z]/ {kept = !/^($(OF_TORCH))==/} kept' $(TOOLS)/$(1).txt > $(1).lock

lock: $(TOOLS)/installed ## resolve the requirements anew: every package with the hashes of its files
	@$(call compile,requirements)
	@$(call compile,requirements-dev,--constraints requirements.lock)

audit: $(TOOLS)/installed ## look for known vulnerabilities of the locked packages
	@$(PYTHON) -m tests.audit_requirements $(TOOLS)/bin/pip-audit

sbom: setup $(TOOLS)/installed ## write sbom.json: what is installed, as CycloneDX
	@$(TOOLS)/bin/cyclonedx-py environment $(PY) --output-format JSON -o sbom.json
	@echo "wrote sbom.json"

clean: ## forget the environment, keep the data in .zelo
	@rm -rf $(VENV) $(TOOLS) *.egg-info .mypy_cache .ruff_cache .pytest_cache

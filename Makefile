# Two commands do everything on a machine with Python 3.11+ and make:
#   make run    the whole system on this machine, with a delivered notification on the screen
#   make test   everything that CI checks, but for `make docs`, `test-mixed`, `test-schema`, `test-services` and
#               `test-chaos`

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests wait more than they compute: a few processes more than one suit two cores.
WORKERS ?= 5
# Tests start hundreds of processes, and each would compile the code anew.
unexport PYTHONDONTWRITEBYTECODE

LOCKS := $(wildcard locks/*/*.txt)

# What is locked for the Python at hand, by its hashes; the ranges themselves for a Python that nobody has tried yet.
define install
lock=locks/$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')/$(1); \
if [ -e "$$lock" ]; then \
	echo "Installing $$lock into $(VENV) …"; \
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r "$$lock"; \
else \
	echo "There is no $$lock: this Python is newer than those that are tested. Installing $(1), unlocked …"; \
	$(BIN)/pip install --quiet --disable-pip-version-check -r $(1); \
fi
endef

.DEFAULT_GOAL := help
.PHONY: help run test test-mixed test-schema test-services test-chaos chaos soak bench bench-quick release-check lint types imports pytest docs settings screenshots dashboards prometheus-rule locks audit format clean client-types

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: $(VENV)/.installed ## Start everything, send a sample event, and stay up until Ctrl-C
	$(BIN)/python manage.py up --demo $(ARGS)

test: lint types imports pytest ## Run everything that CI checks, but for `docs`, `test-mixed`, `test-schema`, `test-services` and `test-chaos`

lint: $(VENV)/.installed-dev ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## Check types
	$(BIN)/mypy

imports: $(VENV)/.installed-dev ## Check that imports point one way
	$(BIN)/lint-imports --no-cache

pytest: $(VENV)/.installed-dev ## Run the tests, in WORKERS processes; ARGS="-k name" picks some
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-mixed: $(VENV)/.installed-dev ## Run the release before beside this one; needs the history of git
	$(BIN)/python -m pytest tests/system/mixed_versions.py $(ARGS)

test-schema: $(VENV)/schema/.installed ## Send a running system what its OpenAPI description allows and forbids; needs the internet once
	$(BIN)/python -m pytest tests/schema $(ARGS)

# .ci/run unpacks there what is not installed.
test-services: export PATH := $(PATH):$(CURDIR)/.services/usr/bin:$(CURDIR)/.services/usr/sbin
test-services: $(VENV)/.installed-dev ## Run the tests on Debian's Prometheus, RabbitMQ, PgBouncer, Redis, Postgres and Chromium, which must be there (.ci/run fetches them)
	$(BIN)/python -m pytest tests/services $(ARGS)

test-chaos: $(VENV)/.installed-dev ## Break the system in a few ways, within five minutes; the seed is printed, ARGS="--seed 7" sets it
	$(BIN)/python -m tests.chaos --short $(ARGS)

chaos: $(VENV)/.installed-dev ## Break the system in every way; ARGS="--fault kill-worker --seed 7" picks one, --list lists them
	$(BIN)/python -m tests.chaos $(ARGS)

bench: $(VENV)/.installed-dev ## Measure everything, in a bit more than an hour; ARGS="--only peers" picks a part, ARGS=--short is quicker
	$(BIN)/python -m benchmarks.full $(ARGS)

bench-quick: $(VENV)/.installed-dev ## Measure the main path, and compare it with the last release; on a machine that does nothing else
	$(BIN)/python -m benchmarks.quick $(ARGS)

soak: $(VENV)/.installed-dev ## Break the system for half an hour, and see that nothing grows; ARGS="--minutes 5"
	$(BIN)/python -m tests.chaos.soak $(ARGS)

docs: $(VENV)/docs/.installed ## Build the documentation as a site in build/site, and check its links; open build/site/index.html
	$(BIN)/python -m deploy.site build/docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build --config-file build/docs/mkdocs.yml
	$(BIN)/python -m pytest tests/site $(ARGS)

settings: $(VENV)/.installed ## Write the tables of docs/settings.md anew, from config/settings.py
	$(BIN)/python -m deploy.site --settings

# Debian's Chromium, as for test-services.
screenshots: export PATH := $(PATH):$(CURDIR)/.services/usr/bin
screenshots: $(VENV)/.installed-dev ## Draw the pages of the console anew, for docs/console.md; ARGS="--only find" draws one
	$(BIN)/python -m tests.services.screenshots $(ARGS)

dashboards: $(VENV)/.installed ## Write Grafana's dashboards anew, from deploy/dashboards
	$(BIN)/python -m deploy.dashboards

prometheus-rule: $(VENV)/.installed ## Write the alerts anew for Kubernetes, from deploy/prometheus/alerts.yml
	$(BIN)/python -m deploy.prometheus_rule

client-types: $(VENV)/.installed-dev ## Write the Python client's types anew, from the API's OpenAPI description
	$(BIN)/python -m clients.python.write_types

locks: $(VENV)/.installed-dev ## Lock all requirements anew, after a change of theirs; ARGS=--upgrade takes the newest, ARGS=--check only compares
	PATH="$(abspath $(BIN)):$$PATH" .ci/locks $(ARGS)

audit: $(VENV)/audit/.installed ## Ask OSV for known vulnerabilities of all that is locked; needs the internet
	for lock in locks/*/*.txt; do echo "$$lock"; \
	$(VENV)/audit/bin/pip-audit --vulnerability-service osv --disable-pip --require-hashes -r "$$lock" || exit 1; done

release-check: $(VENV)/.installed-dev ## See that what is committed can be released, in about an hour; ARGS="--only run --python 3.11" picks
	$(PYTHON) .ci/release_check.py $(ARGS)

format: $(VENV)/.installed-dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the virtual environment and caches, and keep the data in .notifier
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Notifier needs Python 3.11 or newer; say which: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt $(LOCKS) | $(BIN)/python
	@$(call install,requirements.txt)
	@touch $@

# Beside our own environment, as `make audit` has its tool.
$(VENV)/schema/.installed $(VENV)/docs/.installed: $(VENV)/%/.installed: requirements-%.txt $(LOCKS) | $(VENV)/.installed-dev
	$(PYTHON) -m venv $(VENV)/$*
	@lock=locks/$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')/requirements-$*.txt; \
	echo "Installing $$lock into $(VENV)/$* …"; \
	$(VENV)/$*/bin/pip install --quiet --disable-pip-version-check --require-hashes -r "$$lock"
	@touch $@

$(VENV)/audit/.installed: requirements-audit.txt $(LOCKS) | $(BIN)/python
	$(PYTHON) -m venv $(VENV)/audit
	lock=locks/$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')/requirements-audit.txt; \
	$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check --require-hashes -r "$$lock"
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements.txt $(LOCKS) tests/data/npm/package-lock.json | $(BIN)/python
	@$(call install,requirements-dev.txt)
	@$(BIN)/python -m tests.support.node_packages
	@touch $@ $(VENV)/.installed

# Everything starts from python3 and make; the rest comes from uv.lock.
.DEFAULT_GOAL := help
.PHONY: help demo test check bench docs lock clean

PYTHON ?= $(shell for name in python3 python3.12 python3.11 python3.13; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$name && break; done)
RUN := .venv/bin/python -m
UV := .venv/bin/uv
SYNC := VIRTUAL_ENV= $(UV) sync --quiet --frozen --inexact --compile-bytecode --python .venv/bin/python

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

demo: .venv/.installed ## A fleet on this machine: embedded Redis, two workers, a feed, a live table
	@.venv/bin/predictor demo

# Four at once on two cores too: a third of the time a test waits for processes of its own. In their order, since the
# files with the fewest tests, which would come last, are the longest.
test: .venv/.synced ## The whole test suite, with a real Redis and real processes
	@$(RUN) pytest -q -n 4 --dist loadfile --no-loadscope-reorder

check: .venv/.synced ## Lint and types
	@$(RUN) ruff check .
	@$(RUN) pyright

bench: .venv/.installed ## The measurements that the README quotes
	@.venv/bin/predictor bench graph
	@.venv/bin/predictor bench pipeline

docs: .venv/.synced ## The documentation as a site, in .predictor/site
	@NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --config-file docs/site/mkdocs.yml

lock: .venv/.installed ## Resolve the dependencies anew and write the pinned lists in deploy/
	@$(UV) lock --upgrade
	@.venv/bin/python deploy/pins.py

clean: ## Remove what the targets made
	@rm -rf .venv .predictor .pytest_cache .ruff_cache .hypothesis

# What the product runs with; and besides it what only tests, checks and comparisons need.
.venv/.installed: pyproject.toml uv.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; none is on the PATH. Install one, or run: make PYTHON=/path/to/python"; exit 1; }
	@test -x .venv/bin/uv || { echo "making .venv with $(PYTHON) ..."; $(PYTHON) -m venv .venv && .venv/bin/pip install --quiet uv==0.13.8; }
	@echo "installing the pinned dependencies ..."
	@$(SYNC) --no-dev
	@touch $@

.venv/.synced: .venv/.installed
	@echo "installing what the tests need ..."
	@$(SYNC) --all-groups --extra otel --extra peers --extra tune
	@touch $@

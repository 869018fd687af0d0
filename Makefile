# `make run` and `make test` do all set-up themselves: a virtual environment in .venv, made with any Python >= 3.11.
# PYTHON=/path/to/python chooses one; ARGS="--branches 5 --fresh" goes to run_cluster.py.

PYTHON ?=
ARGS ?=
# compat: else a folder named zbank beside a script (this clone, say) would hide the package from that script
PIP = .venv/bin/pip install --quiet --disable-pip-version-check
EDITABLE = --no-deps --no-build-isolation --config-settings editable_mode=compat
UV = .venv/lock/bin/uv pip compile setup.cfg requirements/build.in --universal --python-version 3.11 --generate-hashes \
    --no-annotate --no-emit-index-url --custom-compile-command "make lock" --quiet --upgrade
MINUTES ?= 5
BENCH ?= --work transfer --in-flight 256 --seconds 10

CHROMIUM = { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null

.PHONY: help run test test-ui browser screenshots test-long sim sim-long fuzz berka bench lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/installed  ## start the demo cluster (Ctrl-C stops it)
	@exec .venv/bin/python run_cluster.py $(ARGS)

test: .venv/installed-dev browser  ## lint, types and all tests
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/python -m pytest -n 2 --dist loadfile -m "not long"
	.venv/bin/python -m tests.simulation

test-ui: .venv/installed-dev browser  ## the dashboard alone, in a real browser
	@$(CHROMIUM)
	CI=true .venv/bin/python -m pytest tests/ui tests/unit/test_dashboard_parts.py tests/unit/test_dashboard_paying.py

browser:  ## install Chromium for the tests of the dashboard, where this may be done
	@$(CHROMIUM) || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu fonts-liberation; } || \
	    echo "no Chromium here, so the tests in a browser are left out: install it (as root: apt-get install chromium)" >&2

screenshots: .venv/installed-dev browser  ## take the pictures of docs/ anew
	.venv/bin/python docs/screenshots.py

test-long: .venv/installed-dev  ## the longer variants: more seeds, more kills
	ZBANK_RANDOM_TESTS=1 .venv/bin/python -m pytest -m "long or not long" tests/unit tests/fuzz tests/storage
	.venv/bin/python -m pytest -m long

sim: .venv/installed-dev  ## the simulated bank, standard run: lost messages, crashes, failing disks
	.venv/bin/python -m tests.simulation

sim-long: .venv/installed-dev  ## the same with seeds that were not played before, for MINUTES=5
	.venv/bin/python -m tests.simulation --minutes $(MINUTES)

fuzz: .venv/installed-fuzz  ## look for bytes that crash the decoders or the actors, for MINUTES=5 in all: three targets share them
	.venv/bin/python -m tests.fuzz.atheris_target --minutes $(MINUTES)

berka: .venv/installed  ## replay a real bank's movements and compare every balance
	.venv/bin/python -m examples.berka

bench: .venv/installed  ## measure the running cluster (start it with `make run` in another shell)
	.venv/bin/zbank bench $(BENCH)

lock: .venv/made  ## pin the newest versions of all dependencies, with hashes, in requirements/
	.venv/bin/python -m venv .venv/lock && .venv/lock/bin/pip install --quiet --disable-pip-version-check uv
	$(UV) --extra rest --extra dashboard --extra discovery -o requirements/run.txt
	$(UV) --extra rest --extra dashboard --extra discovery --extra dev -o requirements/dev.txt

clean:  ## remove .venv and all caches; data/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find zbank tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: setup.cfg pyproject.toml requirements/run.txt | .venv/made
	$(PIP) --require-hashes -r requirements/run.txt
	$(PIP) $(EDITABLE) -e .
	@touch $@

.venv/installed-dev: setup.cfg pyproject.toml requirements/dev.txt | .venv/made
	$(PIP) --require-hashes -r requirements/dev.txt
	$(PIP) $(EDITABLE) -e .
	@touch $@ .venv/installed

.venv/installed-fuzz: setup.cfg pyproject.toml | .venv/installed-dev
	$(PIP) 'atheris >= 3.0'
	@touch $@

.venv/made:
	@if .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && [ -x .venv/bin/pip ]; then \
	    touch $@; exit 0; fi; \
	seen=; for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
	    "$$python" -c '' 2>/dev/null || continue; \
	    if ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	        seen="$${seen:+$$seen, }$$python ($$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'))"; continue; fi; \
	    if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
	        seen="$${seen:+$$seen, }$$python (without venv: apt-get install python3-venv)"; continue; fi; \
	    echo "making .venv with $$("$$python" --version)"; \
	    "$$python" -m venv --clear .venv && touch $@ && exit 0; exit 1; \
	done; \
	echo "zbank needs Python 3.11 or newer with venv; found $${seen:-none}." \
	    "Install one, or name it: make run PYTHON=/path/to/python" >&2; exit 1

# make demo      all of it shown in a few minutes, from nothing but Python, git and make (ARGS="--driver process")
# make test      everything from nothing: virtual environment, engine, image, Prefect client, then pytest (ARGS="-k name" to choose, WORKERS=1 for one after the other)
# make lint      ruff, mypy, import-linter
# make serve     the daemon from this checkout (ARGS="--help")
# make bench     managedd and Prefect's own server side by side, about seven minutes (ARGS="--quick", ARGS="--compare OLD.json")
# make provision what the container tests need, with the engine left running; `make stop-engine` ends it
# make binary    dist/managedd: one executable that needs no Python where it runs
# make lock      requirements.lock from a fresh virtual environment: what test and lint install from then on
# make clean     nothing left that make, pytest or the tools have made here

SHELL := /bin/bash
PYTHON ?= python3
ARGS ?=
# Tests of one file stay together, each worker has a daemon of its own; much of the time they wait for containers.
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# What is installed beside managedd itself.
EXTRA := [dev]
DEMO := .cache/demo
BINARY_VENV := .cache/binary-venv
LOCK := $(wildcard requirements.lock)
# Two makes in one checkout take turns at the virtual environment, where the system has flock.
TURN := $(shell command -v flock >/dev/null && echo 'flock .cache/venv.lock')

.PHONY: demo test lint serve bench binary provision stop-engine lock clean venv
.DEFAULT_GOAL := test

# Where the development tools are not installed yet, without them: they take most of the time.
demo:
	@command -v git >/dev/null || { echo "[demo] git is missing; on Debian: apt-get install git" >&2; exit 1; }
	@$(MAKE) --no-print-directory -f $(firstword $(MAKEFILE_LIST)) $(if $(wildcard $(STAMP)),,VENV=$(DEMO)/venv EXTRA=) .demo

.PHONY: .demo
.demo: $(STAMP)
	@$(BIN)/managedd demo --cache $(DEMO) $(ARGS)

test: $(STAMP)
	@$(BIN)/python -m tests.support.provision --run $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP)
	@echo "[lint] ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check .; exit 1; }
	@echo "[lint] mypy"
	@$(BIN)/mypy -p managedd -p tests.support -p tests.bench
	@echo "[lint] import-linter"
	@$(BIN)/lint-imports

serve: $(STAMP)
	@$(BIN)/managedd serve $(ARGS)

bench: $(STAMP)
	@$(BIN)/python -m tests.bench $(ARGS)

provision: $(STAMP)
	@$(BIN)/python -m tests.support.provision

stop-engine: $(STAMP)
	@$(BIN)/python -m tests.support.provision --stop

venv: $(STAMP)

$(STAMP): pyproject.toml $(LOCK)
	@mkdir -p .cache
	@$(TURN) $(MAKE) --no-print-directory -f $(firstword $(MAKEFILE_LIST)) .install

# Under the lock: another make may have done it by now.
.PHONY: .install
.install:
	@if [ -e $(STAMP) ] && [ -z "$$(find pyproject.toml $(LOCK) -newer $(STAMP))" ]; then exit 0; fi; \
	set -ef; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    || { echo "[venv] $(PYTHON) is missing or older than Python 3.11; name another with PYTHON=" >&2; exit 1; }; \
	$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	    || { version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	         echo "[venv] $(PYTHON) can't make virtual environments; on Debian and Ubuntu: apt-get install python$$version-venv" >&2; exit 1; }; \
	began=$$SECONDS; \
	exec 9<> <(:); { while ! read -rt 5 -u 9; do echo "[venv] … $$((SECONDS - began)) s"; done; } & trap "kill $$!" EXIT; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    echo "[venv] making $(VENV) …"; $(PYTHON) -m venv --clear $(VENV); \
	fi; \
	echo "[venv] installing managedd$(if $(EXTRA), and its development tools)$(if $(LOCK), as requirements.lock says) …"; \
	touch $(STAMP).new; \
	pip="$(BIN)/python -m pip --quiet --quiet --disable-pip-version-check"; wanted="$(if $(LOCK),--constraint $(LOCK)) --editable .$(EXTRA)"; \
	{ $$pip install uv && UV_CACHE_DIR=$(DEMO)/uv $(BIN)/uv pip install --quiet --python $(BIN)/python $$wanted; } 2>$(STAMP).uv \
	    || { echo "[venv] uv could not do it, pip takes longer …"; $$pip install $$wanted; }; \
	rm -f $(STAMP).uv; mv $(STAMP).new $(STAMP); \
	echo "[venv] done in $$((SECONDS - began)) s"

# Of the packages that the lock names, in a virtual environment of its own: the binary holds nothing that only tests need.
binary:
	@mkdir -p .cache
	@$(TURN) $(MAKE) --no-print-directory -f $(firstword $(MAKEFILE_LIST)) .binary

.PHONY: .binary
.binary:
	@set -e; began=$$SECONDS; \
	[ -x $(BINARY_VENV)/bin/pip ] || { echo "[binary] making $(BINARY_VENV) …"; $(PYTHON) -m venv --clear $(BINARY_VENV); }; \
	echo "[binary] installing managedd and PyInstaller …"; \
	pip="$(BINARY_VENV)/bin/python -m pip --quiet --quiet --disable-pip-version-check"; wanted="$(if $(LOCK),--constraint $(LOCK)) . pyinstaller>=6.22,<7"; \
	{ [ -x $(BIN)/uv ] && UV_CACHE_DIR=$(DEMO)/uv $(BIN)/uv pip install --quiet --python $(BINARY_VENV)/bin/python $$wanted; } \
	    || $$pip install $$wanted; \
	$$pip uninstall --yes managedd; \
	echo "[binary] freezing …"; \
	PYTHONPATH=. $(BINARY_VENV)/bin/pyinstaller --noconfirm --log-level ERROR --distpath dist --workpath .cache/binary-work .ci/managedd.spec; \
	echo "[binary] dist/managedd: $$(du -h dist/managedd | cut -f1), done in $$((SECONDS - began)) s"

lock:
	@set -e; fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; began=$$SECONDS; \
	echo "[lock] installing the newest versions that fit into a fresh virtual environment …"; \
	$(PYTHON) -m venv "$$fresh"; \
	"$$fresh/bin/python" -m pip install -qq --disable-pip-version-check --editable '.[dev]'; \
	"$$fresh/bin/python" -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9._-]+==[^ ]+$$' >"$$fresh/lock"; \
	cp "$$fresh/lock" requirements.lock; \
	echo "[lock] requirements.lock: $$(wc -l <requirements.lock) packages in $$((SECONDS - began)) s"

# The engine and its image belong to the machine, not to the checkout; a running engine of ours is stopped first.
clean:
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m tests.support.provision --stop || true; fi
	rm -rf $(VENV) .cache build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

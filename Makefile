# Everything a fresh machine needs comes from these targets: Python 3.11+, make, nothing else.
PYTHON ?= python3
PORT ?= 8000
DATA_DIR ?= data
BENCH_DATA ?= ../shared/data
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# Tests that only compute run two at a time; those with servers and workers have the machine.
COMPUTING := tests/unit tests/matrix tests/attacks
SERVING := tests/contract tests/integration tests/browser

.DEFAULT_GOAL := help
.PHONY: help demo demo-stop serve test lint types imports unit contract integration browser slow crash \
	attacks matrix matrix-table benchmark benchmark-matrix bubblewrap chromium screenshots lock clean

help:
	@echo "make demo        sample network, analysed, in the browser: prints one link"
	@echo "make demo-stop   stop its server (everything it holds stays)"
	@echo "make test        everything the tests need, and all of them but the next two"
	@echo "make slow        every kind of network and data the whole way, pauses, deaths, the command line"
	@echo "make crash       those that kill real processes"
	@echo "make benchmark   measured ratios against the naive loop"
	@echo "make benchmark-matrix   the same for every network of the matrix; about half an hour"

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@touch $@

.venv/core: .venv/made pyproject.toml requirements.lock
	@echo "installing (the first time takes a few minutes) …"
	@$(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check \
		--constraint requirements.lock --editable '.[demo,parquet]'
	@touch $@

.venv/test: .venv/core
	@$(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check \
		--constraint requirements.lock --editable '.[demo,parquet,test,timm,transformers]'
	@touch $@

demo: .venv/core
	@$(BIN)/python -m worker.demo --data-dir $(DATA_DIR) --port $(PORT)

demo-stop: .venv/core
	@$(BIN)/python -m worker.demo --data-dir $(DATA_DIR) --stop

serve: .venv/core
	@$(BIN)/prunescope serve --data-dir $(DATA_DIR) --port $(PORT)

chromium:
	@if command -v chromium >/dev/null 2>&1 || test -n "$$PRUNESCOPE_CHROMIUM"; then :; \
	elif command -v apt-get >/dev/null 2>&1; then \
		echo "installing Chromium for the browser tests …"; \
		SUDO=$$(test "$$(id -u)" = 0 || echo sudo); \
		$$SUDO apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive $$SUDO apt-get install -y -qq --no-install-recommends \
			chromium fonts-liberation >/dev/null; \
	else \
		echo "The browser tests need Chromium, and there is no apt here to get it with."; \
		echo "Install it and set PRUNESCOPE_CHROMIUM=/path/to/chromium, then run make test again."; \
		exit 1; \
	fi

# Without it the tests run at the weaker levels of isolation that there are.
bubblewrap:
	@if ! command -v bwrap >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1; then \
		echo "installing bubblewrap for the tests of the walls …"; \
		SUDO=$$(test "$$(id -u)" = 0 || echo sudo -n); \
		{ $$SUDO apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive $$SUDO apt-get install -y -qq --no-install-recommends \
			bubblewrap >/dev/null; } || echo "bubblewrap can't be installed here; going on without"; \
	fi

test: .venv/test chromium bubblewrap lint types imports
	OMP_NUM_THREADS=1 $(PYTEST) $(COMPUTING) -m "not benchmark and not slow" -n 2 --dist worksteal
	$(PYTEST) $(SERVING) -m "not benchmark and not slow" -n 2 --dist worksteal

slow: .venv/test chromium bubblewrap
	$(PYTEST) $(COMPUTING) $(SERVING) -m slow -n 2 --dist worksteal

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test
	$(BIN)/pyright

imports: .venv/test
	$(BIN)/lint-imports

unit contract integration browser crash attacks matrix: .venv/test
	$(PYTEST) tests/$@

matrix-table: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.matrix.table

benchmark: .venv/test
	PRUNESCOPE_BENCH_DATA=$$(cd $(BENCH_DATA) 2>/dev/null && pwd) \
		$(PYTEST) tests/benchmarks -m benchmark -s --ignore tests/benchmarks/test_matrix_speed.py

benchmark-matrix: .venv/test
	OMP_NUM_THREADS=1 $(PYTEST) tests/benchmarks/test_matrix_speed.py -m benchmark -s

screenshots: .venv/test chromium
	$(BIN)/python -m tests.browser.screenshots screenshots

lock:
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/pip install --quiet '.[demo,parquet,test,timm,transformers]' 'torchvision==0.28.*'
	@.venv-lock/bin/pip freeze --exclude prunescope --exclude pip --exclude setuptools \
		| sed 's/+cpu$$//' > requirements.lock
	@rm -rf .venv-lock

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis

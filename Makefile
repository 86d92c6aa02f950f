# The whole surface for a newcomer. Needs make and Python >= 3.11, nothing else: bootstrap.py fetches the rest.

PYTHON ?= python3
ENV := $(abspath $(or $(UV_PROJECT_ENVIRONMENT),.venv))
BIN := $(ENV)/bin

# Not for `up`: the commands it prints must run in the caller's shell, whose PATH is another.
test lint e2e lab bench: export PATH := $(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help up down test lint bench lab e2e bootstrap

help: ## what can be made
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

up: ## start everything on this machine, stay in the foreground (ARGS="--no-demo --port 8080 ...")
	@$(PYTHON) bootstrap.py kubelore up $(ARGS)

down: ## stop what runs on the default data directory (ARGS="--data DIR")
	@$(PYTHON) bootstrap.py kubelore down $(ARGS)

bootstrap: ## make the environment, with what tests and linters need
	@$(PYTHON) bootstrap.py --dev

test: lint ## the whole suite by two workers, real servers included (ARGS="-k name -x ...", "-n 0" for none)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(if $(CI),--reruns 1) $(ARGS)

lint: bootstrap ## ruff, basedpyright, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright
	$(BIN)/basedpyright -p tests/pyrightconfig.json
	$(BIN)/lint-imports

e2e: bootstrap ## only the tests that go through `kubelore up`
	$(BIN)/pytest tests/e2e $(ARGS)

lab: bootstrap ## two real clusters on this machine: build, start, print their kubeconfigs, stop on Ctrl-C
	@$(BIN)/python -m kubelore.lab $(or $(ARGS),up)

bench: bootstrap ## the figures of docs/benchmarks.md
	$(BIN)/python -m tests.bench $(ARGS)

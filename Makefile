# Everything a developer or CI calls. `make help` lists it.
SHELL := /bin/bash
BIN := .venv/bin
export PATH := $(PATH):$(CURDIR)/$(BIN)
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo up migrate test chaos bench check fmt openapi lock

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-8s %s\n", $$1, $$2}'

setup: $(READY) ## Make .venv with the pinned packages and what the machine lacks (nothing to do when nothing changed)

$(READY): requirements.lock pyproject.toml deploy/setup.sh
	@deploy/setup.sh
	@touch $@

demo: $(READY) ## Start everything and run a mission before your eyes; ARGS="--yes --kill-worker --exit"
	@$(BIN)/mission-control demo $(ARGS)

up: $(READY) ## Run everything on this machine until Ctrl-C
	@$(BIN)/mission-control up

migrate: $(READY) ## Bring the database of DATABASE_URL to the newest schema
	@$(BIN)/mission-control migrate

# All tests wait more than they work, so several processes share them, a file to one. Some are quicker in one process.
SHARED := $(if $(filter tests% -k,$(ARGS)),,-n 3 --dist loadfile --no-loadscope-reorder)

test: check ## Run the checks and all tests; ARGS="tests/unit -k word" for some
	@$(BIN)/python -m worker.dev.fetch
	$(BIN)/pytest $(SHARED) $(ARGS)

chaos: $(READY) ## Kill random processes under running missions and see that none is harmed; ARGS="--seed N"
	$(BIN)/python -m tests.chaos $(ARGS)

bench: $(READY) ## Measure us against the bare stack, interleaved; prints a table, writes benchmarks/results
	$(BIN)/python -m benchmarks $(ARGS)

check: $(READY) ## Lint, format, types, import direction
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(READY) ## Format, and fix what can be fixed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

openapi: $(READY) ## Write the committed OpenAPI document, event schema and state machines anew
	$(BIN)/python -m api.openapi

lock: $(READY) ## Pin the newest allowed version of every package in requirements.lock
	uv lock --upgrade --quiet
	uv export --frozen --quiet --no-header --no-emit-project --all-groups --format requirements-txt --output-file requirements.lock

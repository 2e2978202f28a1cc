# Footfall: `make run` and `make test` do all set-up. See `make help`.
SHELL := /bin/bash
export FOOTFALL_HOME ?= $(CURDIR)/.footfall
BIN := .venv/bin
UV := .uv/bin/uv
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell command -v $(name) >/dev/null 2>&1 && $(name) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $(name))))

.DEFAULT_GOAL := help
.PHONY: help setup run up test test-slow check bench format clean

help: ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready ## make .venv from uv.lock

# uv lives beside the environment that it makes, so nothing outside of this folder changes.
.venv/ready: pyproject.toml uv.lock
	@test -n "$(PYTHON)" || { echo "Footfall needs Python 3.11, 3.12 or 3.13; set PYTHON=/path/to/python3"; exit 1; }
	@echo "setting up .venv with $(PYTHON)"
	@test -x $(UV) || { $(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"; }
	@UV_PROJECT_ENVIRONMENT=.venv UV_PYTHON_DOWNLOADS=never $(UV) sync --quiet --frozen --python $(PYTHON)
	@touch $@

# STACK=full runs a command on Kafka, Cassandra, S3 and PostgreSQL, and ends them after it, also after Ctrl-C.
ON_STACK = $(if $(filter full,$(STACK)),trap '"$(BIN)/footfall" down' EXIT; "$(BIN)/footfall" services start && stack=$$("$(BIN)/footfall" services env) && eval "$$stack" && )

run: .venv/ready ## the main job: sample traffic (or LOG=access.log) to a printed report
	@$(ON_STACK)"$(BIN)/footfall" demo $(if $(LOG),--log "$(LOG)") $(if $(SITE),--site "$(SITE)")

up: .venv/ready ## collector, Dagster UI and schedules, until Ctrl-C (STACK=full: on Kafka, Cassandra, S3, PostgreSQL)
	@$(ON_STACK)"$(BIN)/footfall" up

test: .venv/ready ## every test, real servers included (at most 20 minutes)
	@"$(BIN)/pytest" -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: .venv/ready ## the long stories
	@"$(BIN)/pytest" -m slow $(ARGS)

check: .venv/ready ## ruff, mypy, import contracts, dbt parse, Dagster definitions
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/dbt parse --quiet --project-dir dbt_project --profiles-dir dbt_project --target-path "$(FOOTFALL_HOME)/check" --log-path "$(FOOTFALL_HOME)/check"
	@mkdir -p "$(FOOTFALL_HOME)/check/dagster" && touch "$(FOOTFALL_HOME)/check/dagster/dagster.yaml"
	@PYTHONWARNINGS=ignore DAGSTER_HOME="$(FOOTFALL_HOME)/check/dagster" $(BIN)/dagster definitions validate --workspace workspace.yaml --log-level warning

bench: .venv/ready ## side by side with peers
	@"$(BIN)/python" -m bench $(ARGS)

format: .venv/ready ## ruff format, and what ruff can fix
	@$(BIN)/ruff check --fix-only --quiet . ; $(BIN)/ruff format .

clean: ## remove .venv and what runs left here
	-@test ! -x $(BIN)/footfall || $(BIN)/footfall down
	rm -rf .venv .uv .footfall

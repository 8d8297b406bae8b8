# Two commands matter: `make serve` and `make test`. Both set themselves up from nothing but python3, pip and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: help setup serve otel demo test chaos check bench lock clean .redis .nginx .prometheus .mypy .pyright .lint .layers
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

$(BIN)/.runtime: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Atlas needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	@echo "setting up $(VENV) (once, about half a minute) ..."
	@$(PYTHON) -m venv --clear --without-pip $(VENV)
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(BIN)/.dev: $(BIN)/.runtime requirements-dev.lock
	@echo "installing the development tools ..."
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-dev.lock
	@touch $@

setup: $(BIN)/.runtime ## create .venv with the command .venv/bin/atlas

serve: $(BIN)/.runtime ## start the gateway on 127.0.0.1:8080 (ARGS="--config atlas.yaml --port 9000")
	@$(BIN)/atlas serve $(ARGS)

otel: $(BIN)/.runtime ## add OpenTelemetry to .venv, for telemetry.tracing
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-otel.lock

demo: $(BIN)/.runtime .redis .nginx .prometheus ## docker-compose.yml with real processes, under load, and a walk through it
	@$(BIN)/python -m examples.demo

# Three workers on two cores: tests that wait for leases, alerts and restarts leave them free.
test: $(BIN)/.dev .redis .nginx .prometheus ## run all tests (ARGS="-k pause" for some)
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

chaos: $(BIN)/.dev .redis .nginx ## the tests of several replicas with the full figures, which it prints (six minutes)
	@ATLAS_CHAOS=full $(BIN)/python -m pytest -s -p no:xdist tests/replicas tests/properties/test_breaker.py $(ARGS)

# The tests start redis-server themselves. Root gets it installed; others are told how by the tests that need it.
.redis:
	@command -v redis-server >/dev/null || [ "$$(id -u)" != 0 ] || { \
		echo "installing redis-server, which the tests start ..."; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server >/dev/null; } || true

.nginx:
	@PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || [ "$$(id -u)" != 0 ] || { \
		echo "installing nginx, which stands in front of the gateways ..."; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light >/dev/null; } || true

# Dashboard and alerts are tested against a real Prometheus; promtool comes with it.
.prometheus:
	@command -v promtool >/dev/null || [ "$$(id -u)" != 0 ] || { \
		echo "installing prometheus, which the tests start ..."; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus >/dev/null; } || true

check: $(BIN)/.dev ## lint, types, layers
	@$(MAKE) --no-print-directory --jobs=2 --output-sync .mypy .pyright .lint .layers

.mypy:
	@$(BIN)/mypy

.pyright:
	@$(BIN)/basedpyright --warnings

.lint:
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.layers:
	@$(BIN)/lint-imports

bench: $(BIN)/.dev ## measure beside nginx in the same run; prints the tables of bench/RESULTS.md
	@$(BIN)/python -m bench $(ARGS)

lock: $(BIN)/.dev ## resolve the lock files anew (versions at least a week old)
	@echo setuptools | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url -o requirements.lock pyproject.toml -
	@echo setuptools | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url -c requirements.lock --extra otel -o requirements-otel.lock pyproject.toml -
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url -c requirements.lock --group dev --extra otel -o requirements-dev.lock pyproject.toml

clean: ## remove what setup and the tools made
	@rm -rf $(VENV) *.egg-info .hypothesis .mypy_cache .ruff_cache .import_linter_cache

# Everything a person or the continuous integration does with a checkout; `make` lists it.

PORT ?= 8000
CONFIG ?= deployments/local.yaml

MAKEFLAGS += --no-print-directory
# What is imported is compiled once, whatever the environment says: it is half of the time that a start takes.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: help install install-dev lock serve stop test check bench bench-referee chaos hostile image clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

install: ## create .venv with the packages that serving needs (CPU or GPU, as found)
	@scripts/install.sh runtime

install-dev: ## the same, and the tools for tests and checks
	@scripts/install.sh dev

lock: install-dev ## write requirements/*.txt anew from the .in files: ARGS="cpu", ARGS="--upgrade"
	@scripts/lock.sh $(ARGS)

# `exec`: signals to make, and Ctrl-C, reach the stack itself. The model hub is asked whether it can be reached,
# because a small real model is offered then; HF_HUB_OFFLINE=1 or COMPTOIR_PROBE_HUB=0 forbids it.
serve: install ## start the stack in the foreground: PORT=8000 CONFIG=deployments/local.yaml
	@export COMPTOIR_PROBE_HUB="$${COMPTOIR_PROBE_HUB:-1}"; exec .venv/bin/comptoir up "$(CONFIG)" --port "$(PORT)"

stop: ## stop the stack that listens on PORT
	@test -x .venv/bin/comptoir || { echo "nothing is installed here, so nothing runs"; exit 0; }; \
	exec .venv/bin/comptoir down --port "$(PORT)"

test: install-dev ## run all tests, several at once, the fast ones first: ARGS="tests/gateway -x", ARGS="-n 0"
	@exec .venv/bin/python -m pytest -n auto $(ARGS)

check: install-dev ## lint, formatting, types, layers
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo

bench: install ## measure the data path on this machine: ARGS="null", ARGS="--help"
	@exec .venv/bin/python -m loadtests.bench $(ARGS)

bench-referee: install ## hold the load generator against known truth, vllm bench serve and GuideLLM: ARGS="truth"
	@exec .venv/bin/python -m loadtests.checks.referee $(ARGS)

chaos: install ## kill processes of a stack under load, and count what clients notice
	@exec .venv/bin/python -m loadtests.checks.chaos $(ARGS)

hostile: install ## attack a gateway with slow, broken and greedy clients: ARGS="http://127.0.0.1:8000 --help"
	@exec .venv/bin/python -m loadtests.hostile $(ARGS)

image: ## build the container images and their SBOMs, with docker or podman: ARGS="cpu gpu"
	@exec k8s/images/build.sh $(ARGS)

clean: ## remove .venv, caches and build products
	rm -rf .venv .venv-referee build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

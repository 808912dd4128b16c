# What there is to do in this repository. `make` shows it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Installed once for each state of the locks; a run that was killed leaves no stamp.
DEPLOY_STAMP := $(VENV)/.deploy-$(shell cat ansible/requirements.lock | sha256sum | cut -c -12)
TESTS_STAMP := $(VENV)/.tests-$(shell cat ansible/requirements.lock tests/requirements.lock | sha256sum | cut -c -12)
PIP := $(BIN)/pip --disable-pip-version-check --no-input

help: ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is missing; install python3 (3.11 or newer)" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is too old; give Python 3.11 or newer: make PYTHON=…" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: $(PYTHON) cannot make environments; install python3-venv" >&2; exit 2; }
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(DEPLOY_STAMP): | $(BIN)/python
	@echo "Installing Ansible into $(VENV), which takes a minute"
	@$(PIP) install --quiet --require-hashes --requirement ansible/requirements.lock
	@rm -f $(VENV)/.deploy-* && touch $@

$(TESTS_STAMP): $(DEPLOY_STAMP)
	@echo "Installing linters and test tools into $(VENV)"
	@$(PIP) install --quiet --require-hashes --requirement tests/requirements.lock
	@rm -f $(VENV)/.tests-* && touch $@

.PHONY: help deploy venv demo test lint bench docs locks clean
deploy: $(DEPLOY_STAMP) ## make .venv with what site.yml needs: Ansible

venv: $(TESTS_STAMP) ## make .venv with Ansible, linters and test tools

demo: $(DEPLOY_STAMP) ## boot a throwaway host and make it a hub
	@tests/hosts/demo up demo

test: $(TESTS_STAMP) ## run all tests, in two processes; they boot the throwaway hosts that they need
	@$(BIN)/pytest --numprocesses=2 tests

lint: $(TESTS_STAMP) ## run all linters
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/yamllint --strict .
	@$(BIN)/ansible-lint --offline
	@command -v shellcheck >/dev/null || { echo "lint: shellcheck is missing; install it" >&2; exit 2; }
	@git grep --untracked -lE '^#!(/bin/sh|/usr/bin/env bash)' | xargs shellcheck

bench: $(TESTS_STAMP) ## measure the start of sessions against stock JupyterHub
	@$(BIN)/python tests/bench/bench.py

docs: $(TESTS_STAMP) ## write the roles' READMEs from their argument specs
	@$(BIN)/python roles/readme.py

# Only this needs uv (https://docs.astral.sh/uv/). Versions move with --upgrade: make locks UPGRADE=--upgrade
export UV_CUSTOM_COMPILE_COMMAND = make locks
LOCK = uv pip compile --no-config --quiet --no-emit-index-url --generate-hashes $(UPGRADE)
EVERYWHERE = --universal --python-version 3.11
locks: ## write the lock files anew; needs uv and npm
	$(LOCK) $(EVERYWHERE) hub/requirements.in --output-file hub/requirements.lock
	$(LOCK) $(EVERYWHERE) hub/proxy/requirements.in --output-file hub/proxy/requirements.lock
	$(LOCK) $(EVERYWHERE) ansible/requirements.in --output-file ansible/requirements.lock
	$(LOCK) $(EVERYWHERE) tests/requirements.in --output-file tests/requirements.lock
	images/lock $(UPGRADE)
	cd hub/proxy && npm install --package-lock-only --no-audit --no-fund

clean: ## throw away the demo's host and everything built
	@tests/hosts/host list | grep -q '^demo ' && tests/hosts/host down demo || true
	@rm -rf .build .venv .mypy_cache .pytest_cache .ruff_cache

# Everything runs in .venv, which scripts/setup.sh makes; `make` alone lists the targets.
SHELL := /bin/bash
PY := .venv/bin/python
STAMP := .venv/.envbuild-ready
# In the order they are collected: the slow files come first, and a file's tests share what it built.
PARALLEL := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-all test-engines test-newest house dev-lock dist lint types locks bench installer-pins clean system

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

$(STAMP): pyproject.toml requirements/dev.txt scripts/setup.sh
	@scripts/setup.sh .venv
	@touch $@

system:
	@scripts/system.sh

demo: $(STAMP)  ## lock and build examples/sklearn, train a model in the image
	@scripts/demo.sh

test: $(STAMP) system  ## the tests that a person waits for: five minutes on two cores
	$(PY) -m pytest -m "not engine and not slow" $(PARALLEL) $(ARGS)

test-slow: $(STAMP) system  ## the others that need no Docker engine: real clusters, interruptions, faults
	$(PY) -m pytest -m "slow and not engine" $(PARALLEL) $(ARGS)

test-all: test test-slow  ## all tests that need no Docker engine

test-engines: $(STAMP) system  ## the tests that need a Docker engine, with a private one (as root)
	scripts/with-engine.sh $(PY) -m pytest -m engine $(ARGS)

test-newest: system  ## make test's tests with the newest versions of all we use, in .venv-newest
	@scripts/setup.sh .venv-newest newest
	.venv-newest/bin/python -m pytest -m "not engine and not slow" $(PARALLEL) $(ARGS)

lint: $(STAMP)  ## ruff: check and format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: $(STAMP)  ## mypy --strict over package, tests and benchmarks
	.venv/bin/mypy envbuild tests benchmarks

house: $(STAMP)  ## the figures of the package: circles, fragments, names
	$(PY) scripts/house.py

dev-lock: $(STAMP)  ## lock the development environment anew (requirements/dev.txt)
	$(PY) -m uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.10 \
		--generate-hashes --no-header --no-emit-index-url --quiet --upgrade --output-file requirements/dev.txt

dist: $(STAMP)  ## build the wheel and the source distribution into dist/, with the locked tools alone
	rm -rf dist
	$(PY) -m hatchling build

locks: $(STAMP)  ## lock the curated environments anew
	@scripts/locks.sh $(ARGS)

bench: $(STAMP) system  ## measure against docker build and pip-compile, write benchmarks/results.md
	scripts/with-engine.sh $(PY) -m benchmarks.run $(ARGS)

installer-pins: $(STAMP)  ## pin the pip and py-rattler of rendered Dockerfiles anew (templates/installer)
	$(PY) scripts/installer_pins.py

clean:  ## remove .venv and what tools leave here
	rm -rf .venv .venv-newest .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

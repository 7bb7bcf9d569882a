# Everything a person or a workflow runs. `make help` explains it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
# Compiled modules are kept: without them every process compiles the SDKs again, for seconds.
unexport PYTHONDONTWRITEBYTECODE
# Trust what the machine trusts: a company's proxy has its own certificate.
export UV_SYSTEM_CERTS ?= true
VENV ?= .venv
BIN := $(VENV)/bin
# The laptop is a separate distribution: without its folder, everything for AWS works as before.
LAPTOP := $(wildcard laptop/pyproject.toml)
GROUPS := infra pipelines cli test
# Jobs of workflows install only what they need: make setup PARTS="cli serving".
PARTS ?=
REQUIREMENTS := $(GROUPS:%=requirements/%.txt) $(if $(LAPTOP),laptop/requirements/laptop.txt)
PROJECTS := . $(if $(LAPTOP),./laptop)
PINNED := $(REQUIREMENTS) requirements/uv.txt pyproject.toml $(LAPTOP)
# Large, and imported by short processes: compiled on all cores at once, instead of by the first of them to come by.
COMPILED := scipy sklearn skl2onnx pandas onnx pyiceberg botocore pulumi numpy
# Named by what is pinned, so that another checkout of the same pins finds everything installed.
WHOLE := $(VENV)/.installed-$(shell cat $(PINNED) | cksum | cut -d' ' -f1)
EMPTY :=
WANTED := $(if $(PARTS),-$(subst $(EMPTY) $(EMPTY),-,$(strip $(PARTS))))
INSTALLED := $(or $(wildcard $(WHOLE)),$(WHOLE)$(WANTED))

.PHONY: help
help: ## This text
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(INSTALLED) ## Create .venv with the pinned requirements (other targets do this first)
	@test -e .venv || ln -s $(abspath $(VENV)) .venv

$(INSTALLED):
	@test "$(VENV)" = .venv || { echo "error: $(VENV) is not up to date: expected the pins of this checkout, found others" >&2; \
		echo "fix: change requirements/ and pyproject.toml next to $(VENV) in the same way, and run make setup there" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; found " + sys.version.split()[0])'
	@echo 'Installing the pinned requirements into $(VENV): a minute, or some more if they are downloaded.' >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes $(foreach file,$(if $(PARTS),$(PARTS:%=requirements/%.txt),$(REQUIREMENTS)),-r $(file))
	@$(if $(LAPTOP),,$(BIN)/uv pip uninstall --quiet --python $(BIN)/python mlops-laptop)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(foreach project,$(if $(PARTS),.,$(PROJECTS)),--editable $(project))
	@cd $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && $(abspath $(BIN))/python -m compileall -q -j 0 -x '/(tests?|backend)/' $$(ls -d $(COMPILED) 2> /dev/null)
	@rm -f $(VENV)/.installed-* && touch $@

.PHONY: spark
spark: setup ## Install the distributed engine: the Spark Connect client, and Sail
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/spark.txt

.PHONY: demo
demo: setup ## Show the whole journey on this machine: data, training, dev, staging, prod
	@$(BIN)/mlops demo

.PHONY: lint
lint: setup ## Check formatting, lint, and undeclared or unused dependencies
	@$(BIN)/ruff format --check . || { echo 'fix: make format'; exit 1; }
	@$(BIN)/ruff check . || { echo 'fix: make format corrects what it can'; exit 1; }
	@$(BIN)/deptry --no-ansi infra pipelines $(patsubst %/,%,$(wildcard models/*/))
	@$(if $(LAPTOP),cd laptop && $(abspath $(BIN))/deptry --no-ansi .)

.PHONY: typecheck
typecheck: setup ## Check types with mypy --strict, except those of tests and tools
	@$(BIN)/mypy -p infra -p pipelines $(if $(LAPTOP),-p laptop --exclude '^laptop/tests/')

.PHONY: typecheck-all
typecheck-all: setup ## Check types with mypy --strict, also those of tests and tools
	@$(BIN)/mypy -p infra -p pipelines -p tests -p tools $(if $(LAPTOP),-p laptop)

.PHONY: test
test: lint typecheck ## Check lint and types, and run the fast tests
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow"

.PHONY: test-slow
test-slow: typecheck-all ## Check types of tests, too, and run the slow tests: processes, kills, races, journeys
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m slow

# Spark itself is as large as everything else together, and needs Java.
SPARK := $(VENV)/spark-server
$(SPARK)/.installed: requirements/spark-server.txt $(INSTALLED)
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(SPARK)
	@$(BIN)/uv pip install --quiet --python $(SPARK)/bin/python --require-hashes -r requirements/spark-server.txt
	@touch $@

.PHONY: test-spark
test-spark: spark $(SPARK)/.installed ## Run the tests on Spark with two executors, one of which is killed; needs Java 17
	@SPARK_HOME=$$(echo $(abspath $(SPARK))/lib/python3*/site-packages/pyspark) $(BIN)/pytest -n 0 tests/pipelines/training/test_spark_executors.py

.PHONY: fuzz
fuzz: setup ## Fuzz declarations, data and requests; N=12000 sets the number, SEED=1 the seed
	@$(BIN)/python -m tools.fuzz $(or $(N),1200) --seed $(or $(SEED),0)

# A few tests take less time than the start of three workers.
WORKERS := $(if $(filter-out laptop/tests,$(TESTS)),$(if $(filter laptop/tests,$(TESTS)),3,0),3)
.PHONY: test-selected
test-selected: setup ## Run the tests in TESTS, fast and slow; all tests without TESTS
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

.PHONY: test-realistic
test-realistic: setup ## Run the journeys on a realistic laptop, 100 times as fast as AWS; SCALE=20 for 20 times
	@REALISTIC_JOURNEYS=$(or $(SCALE),100) $(BIN)/pytest -n 2 --dist loadfile --timeout=900 laptop/tests/journeys

.PHONY: conformance
conformance: setup ## Run the laptop against real engines; K=rollouts selects tests
	@$(BIN)/python -m laptop.conformance run $(if $(K),-k '$(K)')

.PHONY: conformance-releases
conformance-releases: setup ## Run conformance on official releases: Pulumi's plugins, kind, Argo's manifests
	@$(BIN)/python -m laptop.conformance releases

.PHONY: coverage
coverage: setup ## Run all tests and report the coverage of each file
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered --cov-report=html:.coverage-html

.PHONY: format
format: setup ## Format the code and fix what the linter can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# The peers are measured in separate environments: their pins are neither ours nor each other's.
BENCHES := bench bench-contracts bench-drift
PEERS := $(BENCHES:%=$(VENV)/%/.installed)
$(PEERS): $(VENV)/%/.installed: requirements/%.txt $(INSTALLED)
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/$*
	@$(BIN)/uv pip install --quiet --python $(VENV)/$*/bin/python --require-hashes -r requirements/$*.txt
	@touch $@

.PHONY: bench
bench: setup $(PEERS) ## Run the benchmarks and write docs/benchmarks.md; PART=serving selects one
	@$(BIN)/python -m tools.bench $(PART)

.PHONY: simulate
simulate: setup ## Measure the error rates of the monitors; writes build/simulations.json
	@$(BIN)/python -m tools.simulate

# What training runs is served: its image holds the serving group as well.
# These groups are resolved together, so that one version of a package serves them all.
LOCKED := requirements/uv requirements/serving requirements/spark $(REQUIREMENTS:.txt=)
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links
.PHONY: lock
lock: setup ## Pin the requirements again, with hashes; UPGRADE=--upgrade updates them
	@sed -nE 's/^([A-Za-z0-9_.-]+(\[[^]]*\])?==[^ ;]+( ; .*[^\\ ])?).*/\1/p' $(LOCKED:%=%.txt) | sort -u > $(VENV)/all.txt
	@sed '/^-r/d' $(GROUPS:%=requirements/%.in) requirements/serving.in requirements/spark.in $(wildcard laptop/requirements/laptop.in) > $(VENV)/all.in
	@$(COMPILE) $(UPGRADE) $(VENV)/all.in -o $(VENV)/all.txt
	@for group in $(LOCKED); do \
	  $(COMPILE) --generate-hashes --no-annotate -c $(VENV)/all.txt $$group.in $$(test $$group = requirements/pipelines && echo requirements/serving.in) -o $$group.txt; \
	done
	@$(COMPILE) --generate-hashes --no-annotate -c requirements/serving.txt requirements/bench.in -o requirements/bench.txt
	@for group in bench-contracts bench-drift spark-server; do \
	  $(COMPILE) $(UPGRADE) --generate-hashes --no-annotate requirements/$$group.in -o requirements/$$group.txt; \
	done

.PHONY: clean
clean: ## Remove .venv and the files of the laptop
	@rm -rf $(VENV) .mlops .mypy_cache .ruff_cache

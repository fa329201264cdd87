# Every target that needs the virtual environment depends on a stamp that tools/setup writes.

VENV ?= .venv
PY := $(VENV)/bin/python
T ?= tests
SECONDS ?= 60
ROUNDS ?= 3
COUNT ?= 100
KILLS ?= 100

# In a mount namespace of its own: one that somebody else makes meanwhile has a copy of every mount
# that is there, and the daemon of each would live on in it.
ALONE := $(if $(filter 0,$(shell id -u)),unshare --mount --propagation private)

.DEFAULT_GOAL := help
.PHONY: help setup setup-tests demo test test-unit test-clients test-forget test-build test-one
.PHONY: test-containers test-images check fmt fuzz stress fsx load crash-images conformance bench
.PHONY: bench-full bench-requests bench-clients bench-containers bench-images bench-baseline clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what unionfuse needs: system packages, .venv
	@VENV=$(VENV) tools/setup

setup-tests:
	@VENV=$(VENV) tools/setup --tests

demo: setup ## see a union at work on real directories
	@PATH="$(abspath $(VENV))/bin:$$PATH" demo/run

test: setup-tests ## run every test: unit, property and integration, on real mounts
	@$(PY) -m tests

test-unit: setup ## run the tests that mount nothing
	@$(PY) -m pytest $(wildcard tests/unit tests/property)

test-clients: setup-tests ## as root, run podman, buildah and containerd on unionfuse, for long
	@UNIONFUSE_TEST_LONG=1 UNIONFUSE_TEST_CONTAINERS=200 $(ALONE) $(PY) -m pytest tests -m clients

test-containers: setup-tests ## as root, run a hundred containers at once, and kill commands at random: COUNT=100 KILLS=100
	@$(PY) -m tests.containers --count $(COUNT)
	@$(PY) -m tests.containers --count $(COUNT) --user
	@$(PY) -m tests.containers --kills $(KILLS)
	@$(PY) -m tests.containers --kills $(KILLS) --user

bench-containers: setup-tests ## as root, time containers to their first output, beside podman
	@$(PY) -m tests.container_start

test-forget: setup-tests ## as root, run every test while the kernel drops its caches twice a second
	@UNIONFUSE_TEST_DROP_CACHES=0.5 $(ALONE) $(PY) -m pytest tests

test-one: setup-tests ## run one test: make test-one T=tests/unit/test_x.py::test_y
	@$(PY) -m pytest -vv $(T)

check: setup ## look at format, lint, types and the direction of imports; edits nothing
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

fmt: setup ## format the code and mend what the linter can
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

fuzz: setup-tests ## compare random operations with the kernel's overlayfs: make fuzz SECONDS=600
	@$(ALONE) $(PY) -m tests.fuzz --seconds $(SECONDS)

stress: setup-tests ## let processes share a mount, and compare it with what each did: make stress SECONDS=600
	@$(ALONE) $(PY) -m tests.stress --seconds $(SECONDS)

fsx: setup-tests ## change one file in every way, and compare it with a model: make fsx SECONDS=600
	@$(ALONE) $(PY) -m tests.fsx --seconds $(SECONDS)

test-build: setup-tests ## as root, build Debian images as podman does, and compare them
	@$(PY) -m tests.build && $(PY) -m tests.build --user

test-images: setup-tests ## as root, let Debian images go between unionfuse, podman, skopeo and umoci
	@$(PY) -m tests.debian_images && $(PY) -m tests.debian_images --user

load: setup-tests ## as root, let stress-ng and fio work on a union, over each way of data: make load SECONDS=600
	@$(ALONE) $(PY) -m tests.load --seconds $(SECONDS)

crash-images: setup-tests ## kill commands on a store of images at random points: make crash-images ROUNDS=200
	@$(PY) -m tests.image_crash --rounds $(ROUNDS)

conformance: setup-tests ## as root, run the suites of others: make conformance PJDFSTEST=DIR UNIONMOUNT=DIR
	@$(ALONE) $(PY) -m tests.conformance $(if $(PJDFSTEST),--pjdfstest $(PJDFSTEST)) \
		$(if $(UNIONMOUNT),--unionmount $(UNIONMOUNT))

bench: setup-tests ## as root, compare with overlayfs and fuse-overlayfs in some minutes; report in build/bench
	@$(ALONE) $(PY) -m bench all --quick --rounds 2 --json build/bench/quick.json --docs build/bench

bench-full: setup-tests ## as root, compare every system, on everything; report in docs/benchmarks
	@$(ALONE) $(PY) -m bench all --rounds $(ROUNDS) --json build/bench/full.json --docs docs/benchmarks

bench-requests: setup-tests ## as root, count the FUSE requests of each workload, and check them
	@$(ALONE) $(PY) -m bench requests

bench-clients: setup-tests ## as root, time podman and containerd on each system; report in docs/benchmarks
	@$(PY) -m compileall -q unionfuse  # as an installed package is
	@$(ALONE) $(PY) -m bench clients --rounds $(ROUNDS) --docs docs/benchmarks

bench-images: setup-tests ## as root, time pulls, commits and pushes beside podman and umoci; report in docs/benchmarks
	@$(PY) -m compileall -q unionfuse  # as an installed package is
	@$(PY) -m bench images --rounds $(ROUNDS) --docs docs/benchmarks

bench-baseline: setup-tests ## as root, count requests, and fail where they are more than they were
	@$(ALONE) $(PY) -m bench baseline

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

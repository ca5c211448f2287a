# One verb per target; `make` alone lists them.

# Waiting OpenMP threads sleep after some microseconds instead of spinning on: on few cores an audit
# beside a server is several times faster so, and work alone is not slower.
export OMP_WAIT_POLICY = passive
export GOMP_SPINCOUNT = 1000

# Tests start hundreds of processes, each of which would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

bin := .venv/bin
python_code := client kernels server tests testkit scripts emoji_tiny benchmarks examples
PYTEST_ARGS ?=
LANE ?= -m "not long"
# Three on two cores: many tests wait for servers. The tests of a file share what it sets up, and
# the files that take longest begin first (testkit/lanes.py).
PROCESSES ?= -n 3 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint types proto proto-check chart pytest docs packages sbom bench bench-kernels clean

help: ## List these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Create .venv with everything that tests, linters and training need
	@scripts/setup.sh dev
	@scripts/install_test_tools.sh

demo: ## Start a real server and audit five files through the SDK
	@scripts/setup.sh runtime
	@$(bin)/python scripts/demo.py

test: setup lint types proto-check pytest ## Everything that has to hold before a change lands

test-all: LANE := --hypothesis-profile searching
test-all: test ## The same, and what plays real time, repeats or sweeps

lint: ## Check style and formatting
	$(bin)/ruff check .
	$(bin)/ruff format --check $(wildcard $(python_code))

types: ## Check types
	$(bin)/mypy

proto: ## Regenerate the stubs and openapi.json from proto/
	scripts/proto.sh
	$(bin)/python -m scripts.openapi

proto-check: ## Lint proto/, look for breaking changes, stale stubs and a stale openapi.json
	scripts/proto.sh --check
	$(bin)/python -m scripts.openapi --check

chart: ## Carry the comments of the chart's values into its README and schema, render and lint it
	scripts/chart.sh

# What every server of the tests needs is made once and alone; with none there, as on a new machine,
# the first three tests would each wait minutes for it beside the others.
pytest: ## Run the tests; PYTEST_ARGS="-k intake" picks some
	@OMP_NUM_THREADS=1 $(bin)/python -m testkit.materials
	OMP_NUM_THREADS=1 $(bin)/pytest $(LANE) $(PROCESSES) --durations=40 $(PYTEST_ARGS)

docs: setup ## Build the documentation as a site in build/site; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs build --strict

packages: setup ## Build wheels and sdists in build/dist, check them and use them in an empty environment
	$(bin)/python -m scripts.check_packages

sbom: setup ## Write bills of materials of the wheels and of the image into build/supply
	$(bin)/python -m scripts.sbom

bench: ## Run the benchmarks and write benchmarks/results/
	@scripts/setup.sh dev
	$(bin)/python -m benchmarks.run

# No setup: a GPU machine has its own torch and Triton, and nothing else is needed.
bench-kernels: ## Measure the kernels on the GPU, or a small version on the CPU; 9 minutes at most
	PYTHONPATH=kernels $(or $(wildcard $(bin)/python),python3) -m benchmarks.kernels $(KERNEL_ARGS)

clean: ## Remove .venv and caches; what training made in build/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find client kernels server -name '*.egg-info' -prune -exec rm -rf {} +
	find . -name __pycache__ -prune -exec rm -rf {} +

# `make demo` and `make test` do all the set-up on a fresh machine.
# `make demo TORCH=cpu` installs PyTorch without CUDA, which is smaller by gigabytes.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SOURCES := tats_ray jobs examples tests
TORCH_INDEX := $(if $(filter cpu,$(TORCH)),--extra-index-url https://download.pytorch.org/whl/cpu)
PYTEST  := $(BIN)/python -m pytest

.PHONY: setup demo test test-all lint format clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_INDEX) \
		-c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/tats-ray demo

# What needs no Ray runs in two processes; whole runs and Ray's tests come one by one.
test: setup
	$(PYTEST) -n 2 tests/unit tests/golden
	$(PYTEST) tests/ray tests/runs tests/faults

# The soak test watches the memory of its own process, which must not be that of other tests.
test-all: setup
	$(PYTEST) -m '' -n 2 tests/unit tests/golden
	$(PYTEST) -m '' tests/ray tests/runs tests/faults --ignore=tests/faults/test_soak.py
	$(PYTEST) -m '' tests/faults/test_soak.py

lint: setup
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) build *.egg-info

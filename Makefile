# Everything sets itself up: `make demo` and `make test` work in a fresh clone with nothing but Python and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The official GPU wheel where an NVIDIA driver is present, else the CPU one; never both, so where a driver came or went
# the environment is made anew. Where nvidia-smi is missing although there is a GPU: `make FAISS=gpu gpu`.
FAISS := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
STAMP := $(VENV)/.installed-$(FAISS)

# Interpreters that tests start read what was compiled before.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test quick accept bench gpu lint format clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(if $(wildcard $(STAMP)),,--clear) $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(FAISS),onnx,dev]"
	@touch $@

demo: $(STAMP)
	$(BIN)/qfuse demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Configs, plans and every number, on data made in memory: no command, no worker, no network, no page.
quick: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/test_rooms.py $(addprefix tests/pipeline/,config core files plan) \
	  $(addprefix tests/stages/,draw evaluation exact fusion matching metrics quality tables)

# What is too long for the tests, on the real photographs of ../shared (or QFUSE_SHARED); writes docs/acceptance.md.
accept: $(STAMP)
	-$(BIN)/python -m pip install --quiet --only-binary :all: atheris  # fuzzing guided by coverage, where it has a wheel
	$(BIN)/python -m tests.accept

# Our speed beside the field's common method, in one run; writes docs/performance.md.
bench: $(STAMP)
	$(BIN)/python -m benchmarks

# Every path that can use a GPU beside the processor, in one run; needs an NVIDIA GPU; writes docs/gpu.md.
gpu: $(STAMP)
	$(BIN)/python -m benchmarks.gpu

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .qfuse

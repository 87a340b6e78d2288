# make demo | test | bench | lint | sanitize | arm-tests | cuda-sanitize | gpu-check | clean. Each
# makes what it needs, in $(VENV); given are Python, a C++ compiler and make.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
WORKERS ?= auto
RUN ?= runs/digits
OUT ?= runs/gpu-check

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
PACKAGE := pyproject.toml setup.py MANIFEST.in README.md LICENSE $(CONSTRAINTS)
SOURCES := $(shell find csrc vae_fast kernels -type f \
	! -name '*.pyc' ! -name '*.so' ! -name '.*')
CPP := $(wildcard csrc/*.cpp csrc/*.h csrc/*/*.cpp csrc/*/*.h csrc/*/*.cu csrc/*/*.cuh \
	tests/cpp/*.cpp tests/cpp/*.h tests/cuda_host/*.cpp tests/cuda_host/*.h \
	tests/cuda_host/include/*.h tests/cuda_host/include/*/*.cuh)

.PHONY: demo test bench lint sanitize arm-tests cuda-sanitize gpu-check clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/vae-fast train --data digits --out $(RUN) --overwrite
	@echo "The pictures are in $(abspath $(RUN)):"
	@ls $(RUN)/*.png

# The pytest program, unlike `python -m pytest`, leaves this folder off sys.path: the tests import
# the installed package, as users have it. A process a core; pytest-benchmark cannot be beside that.
test: $(VENV)/.installed
	$(BIN)/pytest -n $(WORKERS) -p no:benchmark $(PYTEST_ARGS)

# Appended to sys.path, this folder does not hide the installed package either.
bench: $(VENV)/.peers
	$(BIN)/pytest bench/ --import-mode=append --benchmark-only $(PYTEST_ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP)

sanitize: $(VENV)/.tools
	$(BIN)/cmake -S csrc -B build/sanitize -G Ninja -DVF_SANITIZE=ON \
		-DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja
	$(BIN)/cmake --build build/sanitize
	$(BIN)/ctest --test-dir build/sanitize --output-on-failure

# The C++ tests as 64-bit ARM runs them, for who has Debian's g++-aarch64-linux-gnu and qemu-user.
arm-tests: $(VENV)/.tools
	$(BIN)/cmake -S csrc -B build/arm -G Ninja -DVF_BUILD_TESTS=ON -DVAE_FAST_CUDA=off \
		-DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
		-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
		-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
		"-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64;-L;/usr/aarch64-linux-gnu"
	$(BIN)/cmake --build build/arm
	$(BIN)/ctest --test-dir build/arm --output-on-failure

# On a machine with a GPU: the CUDA kernels under NVIDIA's compute-sanitizer. Tensors do not share
# blocks of memory here, so that an access outside one is outside its allocation too.
cuda-sanitize: $(VENV)/.installed
	for tool in memcheck racecheck initcheck; do \
		PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $$tool --error-exitcode 1 \
			$(BIN)/python -P -m pytest -q -x --timeout 0 tests/test_parity.py \
			-k "cuda-cuda and (dtype or subset or (broadcast and 6x5x3))" || exit 1; \
	done

# Uses the Python it is given, and no network: for a machine that has a GPU and little else.
gpu-check:
	$(PYTHON) -m bench.gpu_check --out $(OUT)

clean:
	rm -rf build dist *.egg-info vae_fast/_C*.so $(VENV)/.installed $(VENV)/.peers

# An ordinary installation, made again whenever what it is made from has changed; the compiled
# objects are kept in build/, so that only changed ones are compiled. The build requirements are in
# the environment, at the versions of the constraints, and not in one of their own.
$(VENV)/.installed: $(VENV)/.tools $(PACKAGE) $(SOURCES)
	@echo "Installing vae_fast and what it needs in $(VENV): some minutes the first time"
	$(PIP) install -c $(CONSTRAINTS) --no-build-isolation '.[dev]'
	touch $@

# The libraries that the benchmarks compare with, which nothing else needs.
$(VENV)/.peers: $(VENV)/.installed
	$(PIP) install -c $(CONSTRAINTS) --no-build-isolation '.[bench]'
	touch $@

$(VENV)/.tools: $(CONSTRAINTS) pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c $(CONSTRAINTS) -U setuptools cmake ninja pybind11
	touch $@

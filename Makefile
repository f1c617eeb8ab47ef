# Two commands from a bare checkout: `make demo` and `make test`. Both need Linux and Python 3.10 or newer, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEFAULT := not gpu and not camera and not network and not slow
# A worker per core and one more, since some tests wait; one thread each: with more they wait for each other.
WORKERS ?= $(shell expr $$(nproc) + 1)
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
# The files to collect for the tests that measure time: collecting all of them takes as long as running these.
ALONE := $(shell grep -rl --include='test_*.py' 'mark\.alone' tests)
# Wings whose tests neither train nor stream, without large graphs, the browser, real builders, every frame size of the GPU's
# kernels, and what waits for measurements or for children.
QUICK := $(addprefix tests/,core artifact images device runtime compiler measurement test_architecture.py) \
	$(addprefix --ignore=tests/,compiler/graph/test_qdq.py compiler/graph/test_fp16.py compiler/graph/test_placement.py \
	compiler/test_without_torch.py compiler/tensorrt_builder/test_child.py compiler/tensorrt_builder/test_real_builder.py \
	runtime/tensorrt_backend/test_kernels.py runtime/tensorrt_backend/test_resize.py measurement/compare/test_compare_files.py \
	measurement/bench measurement/report/test_page_browser.py)

# Images of containers forbid bytecode; without it every worker and every child of a test compiles the tests or the package again.
unexport PYTHONDONTWRITEBYTECODE

# For `make gpu`: a Python with the package, TensorRT, PyCUDA or cuda.core, and pytest, such as that of a Jetson; it needs no torch.
GPU_PYTHON ?= $(BIN)/python
ARTIFACTS  ?= artifacts
OUT        ?= gpu-report

.PHONY: demo test quick slow fuzz kill arm64 attack gpu ptx lint bench family selftest-artifact clean

# The stamp is what makes a second run cheap: pip runs again only when the dependencies changed.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## train, quantize and run a small ResNet on handwritten digits
	$(BIN)/edge-resnet demo

# The tests that measure time come after the others, and run even where one of those failed.
test: $(VENV)/.installed  ## the default tests, on every core: CPU, no network
	@code=0; \
	$(PARALLEL) -m '$(DEFAULT) and not alone' || code=$$?; \
	$(BIN)/python -m pytest -m '$(DEFAULT) and alone' $(ALONE) || code=$$?; \
	exit $$code

quick: $(VENV)/.installed  ## the tests that need little: within a minute
	$(PARALLEL) -m '$(DEFAULT) and not alone' $(QUICK)

slow: $(VENV)/.installed  ## every test that needs no GPU, camera or network
	$(BIN)/python -m pytest --hypothesis-profile thorough -m 'not gpu and not camera and not network'

attack: $(VENV)/.installed  ## a hostile web client, first for a moment and then against a real run
	$(BIN)/python -m pytest -m 'slow or not slow' tests/streaming/web/test_web_attack.py

kill: $(VENV)/.installed  ## every writer killed 20 times: whole or absent, and no litter after the next command
	OMP_NUM_THREADS=1 $(BIN)/python tests/kill/killruns.py

arm64: $(VENV)/.installed  ## the wheel on an emulated ARM processor against x86; needs root, qemu-user-static, debootstrap, network
	$(BIN)/python -m pytest -s -m arm64 tests/arm64

fuzz: $(VENV)/.installed  ## a million inputs to the gates where data comes in
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/campaign.py

ptx: $(VENV)/.installed  ## resize.ptx from resize.cu, by the NVRTC of CUDA 11.8
	$(BIN)/python benchmarks/kernels.py --write

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy tests/typing/api.py
	$(BIN)/python -m basedpyright --project tests/typing --pythonpath $(BIN)/python
	$(BIN)/lint-imports

bench: $(VENV)/.installed  ## ratios from one run; DATA is a CSV, a folder or a name
	$(BIN)/python benchmarks/preprocess.py
	$(BIN)/python benchmarks/int8.py

family: $(VENV)/.installed  ## docs/family.md: the networks on one page; WEIGHTS is a folder, v1 or v2, DATA labelled images, FAMILY options
	$(BIN)/python benchmarks/family.py --weights "$(WEIGHTS)" --data "$(DATA)" $(FAMILY)

gpu:  ## all that needs an NVIDIA GPU: self-test, tests and benchmark; ARTIFACTS holds resnet18-int8 and resnet50-int8, OUT gets the output
	$(GPU_PYTHON) benchmarks/gpu_report.py --artifacts "$(ARTIFACTS)" --out "$(OUT)"

selftest-artifact: $(VENV)/.installed  ## the network that edge-resnet selftest runs, from the shipped weights, with its answers
	$(BIN)/python benchmarks/selftest_artifact.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

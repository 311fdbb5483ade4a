# make quickstart    a family on real images, in minutes (runs/quickstart)
# make test          the tests
# make test-faults   kills real runs at random moments, at least 20 times, and compares their ends
# make check         what CI runs: lint, types, tests on the newest and the oldest JAX, quickstart
# make bench         measures speed on this CPU (PEER=PYTHON, one that has PyTorch, for comparison)
# make bench-gpu     the same on a GPU, in bfloat16
# make clean         removes the environments; runs/ stays

PYTHON ?= $(shell sh tools/find_python.sh 3.12 3.13 3.11)
OLDEST_PYTHON ?= $(shell sh tools/find_python.sh 3.11)
VENV := .venv
OLDEST_VENV := .venv-oldest
RUN := $(VENV)/bin/python
QUICK := runs/quickstart

.PHONY: bench bench-gpu quickstart test test-faults test-oldest lint types check format clean

quickstart: $(VENV)/.runtime
	$(RUN) train.py --config configs/quickstart.py:scratch --workdir $(QUICK)/pretrain
	$(RUN) train.py --config configs/quickstart.py:linear \
	  --config.init_from=$(QUICK)/pretrain --workdir $(QUICK)/linear
	$(RUN) train.py --config configs/quickstart.py:parallel \
	  --config.init_from=$(QUICK)/pretrain --workdir $(QUICK)

test: $(VENV)/.dev
	$(RUN) -m pytest

test-faults: $(VENV)/.dev
	$(RUN) tests/faults.py

# Without the slowest: the README's commands, kills, and the decathlon's recipes.
test-oldest: $(OLDEST_VENV)/.dev
	$(OLDEST_VENV)/bin/python -m pytest \
	  $(foreach name,readme faults decathlon,--ignore=tests/test_$(name).py)

lint: $(VENV)/.dev
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .

types: $(VENV)/.dev
	$(RUN) -m mypy

format: $(VENV)/.dev
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

check: lint types test test-oldest quickstart

$(VENV)/.runtime: pyproject.toml
	@test -n "$(PYTHON)"
	"$(PYTHON)" -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -e .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(RUN) -m pip install --quiet --group dev
	touch $@

# The oldest versions that pyproject.toml allows, on the oldest Python.
$(OLDEST_VENV)/.dev: pyproject.toml tools/lower_bounds.py
	@test -n "$(OLDEST_PYTHON)"
	"$(OLDEST_PYTHON)" -m venv $(OLDEST_VENV)
	$(OLDEST_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(OLDEST_VENV)/bin/python tools/lower_bounds.py > $(OLDEST_VENV)/constraints.txt
	$(OLDEST_VENV)/bin/python -m pip install --quiet -c $(OLDEST_VENV)/constraints.txt -e . --group dev
	touch $@

bench: $(VENV)/.runtime
	$(RUN) benchmarks/input.py
	$(RUN) benchmarks/train.py $(if $(PEER),--peer $(PEER))
	$(RUN) benchmarks/start.py
	$(RUN) benchmarks/roofline.py
	$(RUN) benchmarks/chart.py
	$(RUN) benchmarks/serve.py

bench-gpu: $(VENV)/.runtime
	$(RUN) benchmarks/train.py $(if $(PEER),--peer $(PEER) --compile) --batches 1,32,128,1024 \
	  --dtype bfloat16 --out benchmarks/train_gpu.csv
	$(RUN) benchmarks/start.py --domain pictures --batch 128 --dtype bfloat16 \
	  --out benchmarks/start_gpu.csv
	$(RUN) benchmarks/roofline.py --train benchmarks/train_gpu.csv --out benchmarks/roofline_gpu.csv
	$(RUN) benchmarks/chart.py --train benchmarks/train_gpu.csv \
	  --roofline benchmarks/roofline_gpu.csv --out docs/speed_gpu.png

clean:
	rm -rf $(VENV) $(OLDEST_VENV)

# make quickstart    a family on real images, in minutes (runs/quickstart)
# make test          the tests
# make test-faults   kills real runs at random moments, at least 20 times, and compares the results
# make docs          builds the documentation site in site/, and fails on any warning
# make check         what CI runs: lint, types, docs, tests on the newest and oldest JAX, quickstart
# make bench         measures speed on this CPU and redraws the tables; needs a clean work tree
#                    (PEER=PYTHON, a Python with PyTorch, adds a comparison)
# make bench-gpu     measures training on a GPU, in bfloat16, in an environment of its own
# make transfer      measures what backbones are worth to new domains, WEIGHTS=FILE of a ResNet-56
#                    (DATA=FOLDER of the domains); started again, it goes on where it was stopped
# make imagenet      measures what ImageNet's weights of EfficientNet-Lite0 are worth to new domains
#                    (DATA=FOLDER of three more domains); it goes on where it was stopped, too
# make methods       measures every method on one backbone (DATA=FOLDER of the domains, PRETRAINED=RUN
#                    of the backbone if there is one); it goes on where it was stopped, too
# make study         trains every method on nine domains, with seeds (DATA=FOLDER of the domains); days
#                    on two cores, and goes on where it was stopped
# make compression   measures ways to make domains smaller (DATA=FOLDER of the domains); likewise
# make tables        redraws the tables and pictures of README and docs from the CSV files
# make clean         removes the environments; runs/ stays

PYTHON ?= $(shell sh tools/find_python.sh 3.12 3.13 3.11)
OLDEST_PYTHON ?= $(shell sh tools/find_python.sh 3.11)
VENV := .venv
OLDEST_VENV := .venv-oldest
CUDA_VENV := .venv-cuda
RUN := $(VENV)/bin/python
CUDA_RUN := $(CUDA_VENV)/bin/python
QUICK := runs/quickstart
ON_OLDEST := adapt checkpoint compress convolution cutting derivatives end_to_end evaluate family \
  filters fit format_1 hosts kinds layers networks normed_product optim original packed parity \
  products resnet26 serving service_engine statistics steps training_state trees weighted workdir

.PHONY: docs study bench bench-gpu transfer imagenet methods compression tables quickstart test test-faults test-oldest lint types check format clean

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

# Those that what JAX, Flax, Optax and Orbax do decides: layers, steps, checkpoints, families, whole
# runs, and parity with the original.
test-oldest: $(OLDEST_VENV)/.dev
	$(OLDEST_VENV)/bin/python -m pytest $(foreach name,$(ON_OLDEST),tests/test_$(name).py)

lint: $(VENV)/.dev
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .

types: $(VENV)/.dev
	$(RUN) -m mypy

docs: $(VENV)/.docs
	$(RUN) -m sphinx --quiet --fresh-env --write-all --fail-on-warning --keep-going docs site

format: $(VENV)/.dev
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

check: lint types docs test test-oldest quickstart

$(CUDA_VENV)/.runtime: EXTRA := [cuda]
$(VENV)/.runtime $(CUDA_VENV)/.runtime: pyproject.toml
	@test -n "$(PYTHON)"
	"$(PYTHON)" -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet -e '.$(EXTRA)'
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(RUN) -m pip install --quiet -e '.[serve]' --group dev
	touch $@

$(VENV)/.docs: $(VENV)/.runtime
	$(RUN) -m pip install --quiet --group docs
	touch $@

$(VENV)/.imagenet: $(VENV)/.runtime
	$(RUN) -m pip install --quiet -e '.[imagenet]'
	touch $@

# The oldest versions that pyproject.toml allows, on the oldest Python.
$(OLDEST_VENV)/.dev: pyproject.toml tools/lower_bounds.py
	@test -n "$(OLDEST_PYTHON)"
	"$(OLDEST_PYTHON)" -m venv $(OLDEST_VENV)
	$(OLDEST_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(OLDEST_VENV)/bin/python tools/lower_bounds.py > $(OLDEST_VENV)/constraints.txt
	$(OLDEST_VENV)/bin/python -m pip install --quiet -c $(OLDEST_VENV)/constraints.txt -e . --group dev
	touch $@

bench: $(VENV)/.dev
	$(RUN) benchmarks/input.py --device cpu
	$(RUN) benchmarks/train.py --device cpu $(if $(PEER),--peer $(PEER)) \
	  --batches 32,128 --repeats 6
	$(RUN) benchmarks/train.py --device cpu $(if $(PEER),--peer $(PEER)) \
	  --width 0.25 --size 32 --batches 32,128 --repeats 15 --out benchmarks/train_small.csv
	$(RUN) benchmarks/shares.py --device cpu
	$(RUN) benchmarks/start.py --device cpu
	$(RUN) benchmarks/start.py --device cpu --domain digits --width 0.25 --size 32 \
	  --out benchmarks/start_small.csv
	$(RUN) benchmarks/roofline.py --device cpu
	$(RUN) benchmarks/serve.py --device cpu
	$(RUN) benchmarks/serve.py --device cpu --width 0.25 --size 32 --out benchmarks/serve_small.csv
	$(RUN) benchmarks/many.py --device cpu
	$(RUN) benchmarks/service.py --device cpu $(if $(PEER),--peer $(PEER))
	$(MAKE) tables

bench-gpu: $(VENV)/.runtime $(CUDA_VENV)/.runtime
	$(CUDA_RUN) benchmarks/train.py --device gpu $(if $(PEER),--peer $(PEER) --compile) \
	  --batches 1,32,128,1024 --dtype bfloat16 --out benchmarks/train_gpu.csv
	$(CUDA_RUN) benchmarks/start.py --device gpu --domain pictures --batch 128 --dtype bfloat16 \
	  --out benchmarks/start_gpu.csv
	$(CUDA_RUN) benchmarks/roofline.py --device gpu --train benchmarks/train_gpu.csv \
	  --out benchmarks/roofline_gpu.csv
	$(RUN) benchmarks/chart.py --train benchmarks/train_gpu.csv \
	  --roofline benchmarks/roofline_gpu.csv --out docs/speed_gpu.png
	$(MAKE) tables

transfer: $(VENV)/.runtime
	$(RUN) benchmarks/transfer/run.py $(if $(WEIGHTS),--weights $(WEIGHTS)) $(if $(DATA),--data $(DATA))
	$(MAKE) tables

imagenet: $(VENV)/.imagenet
	$(RUN) benchmarks/transfer/imagenet.py $(if $(DATA),--data $(DATA))
	$(MAKE) tables

methods: $(VENV)/.runtime
	$(RUN) benchmarks/transfer/methods.py $(if $(DATA),--data $(DATA)) \
	  $(if $(PRETRAINED),--pretrained $(PRETRAINED))
	$(MAKE) tables

study: $(VENV)/.runtime
	$(RUN) benchmarks/study/run.py $(if $(DATA),--data $(DATA))
	$(MAKE) tables

compression: $(VENV)/.runtime
	$(RUN) benchmarks/smaller/run.py $(if $(DATA),--data $(DATA))
	$(MAKE) tables

tables: $(VENV)/.runtime
	$(RUN) benchmarks/chart.py
	$(RUN) benchmarks/study/picture.py
	$(RUN) benchmarks/tables.py

clean:
	rm -rf $(VENV) $(OLDEST_VENV) $(CUDA_VENV)

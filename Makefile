# Two commands on a fresh clone do everything. Each makes .venv and installs into it first, if that is not done yet.
#
#   make verify     every loss, in every framework, against the oracle and on real data
#   make test       the tests
#   make docs       the site, in docs/_build/html: strict, and every link inside it is followed
#   make bench      speed and memory, against the plain formulas and peers: hours; ARGS=--quick for minutes
#   make device     kernels on a GPU, in ten minutes, with any Python that has torch or JAX; ARGS=--rehearse on a CPU
#
# ARGS goes to the command: make test ARGS="-k sincere". PYTHON makes the environment: make test PYTHON=python3.12

PYTHON    ?= python3
VENV      := .venv
IN        := $(VENV)/bin
# The install links each module, so it is made again when their list changes.
INSTALLED := $(VENV)/.installed-$(shell find sincere_spec backends conformance -name '*.py' | sort | cksum | cut -d' ' -f1)
ARGS      ?=

.DEFAULT_GOAL := help
.PHONY: help install verify test test-triton36 test-oldest docs bench device lint format

help:
	@sed -n 's/^#   //p' Makefile

verify: install
	@$(IN)/sincere-spec verify $(ARGS)
	@$(IN)/python -m sincere_spec.conformance.distributed --short
	@$(IN)/python -m sincere_spec.conformance.distributed --short --framework jax
	@$(IN)/python -m sincere_spec.conformance.distributed --short --framework tensorflow --sizes 3,2

test: install
	@$(IN)/python -m pytest $(ARGS)

docs: install
	@$(IN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@$(IN)/python docs/make/links.py docs/_build/html

# matplotlib and the peers are no part of the environment that the other two commands need.
bench: install
	@$(IN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(IN)/sincere-spec bench $(ARGS)
	@$(IN)/sincere-spec bench --render

# Nothing is installed: a machine with a GPU has its own builds of torch and JAX. docs/devices.md says what comes of it.
device:
	@$(if $(wildcard $(INSTALLED)),$(IN)/python,$(PYTHON)) -m benchmarks.device $(ARGS)

# The tests of the kernels under Triton 3.6, whose interpreter needs NumPy before 2.4: in an environment of its own.
TRITON36 := .venv-triton36
test-triton36:
	@test -x $(TRITON36)/bin/python || $(PYTHON) -m venv $(TRITON36)
	@$(TRITON36)/bin/python -m pip install --quiet --disable-pip-version-check $(shell grep '^torch==' constraints.txt) \
	  triton==3.6.0 'numpy<2.4' array-api-compat hypothesis pytest pytest-timeout pytest-xdist
	@PYTHONPATH=. $(TRITON36)/bin/python -m pytest tests/test_kernels.py --framework torch \
	  -W 'ignore:Conversion of an array with ndim:DeprecationWarning' $(ARGS)

# The oldest versions that pyproject.toml allows, as it declares them, in an environment of their own. PyPI has the oldest torch
# for Linux with CUDA alone, 3 GB: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu has it without. A framework that
# FRAMEWORKS does not name is not installed, and its tests are skipped. The oldest scikit-learn warns under a newer SciPy.
OLDEST     := .venv-oldest
FRAMEWORKS ?= torch jax tensorflow keras
FLOORS      = $(shell for extra in dependencies verify $(FRAMEWORKS); do grep "^$$extra = " pyproject.toml; done \
                | grep -oE '[a-z0-9-]+>=[0-9.]+' | sed 's/>=/==/')
test-oldest:
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check $(FLOORS) \
	  'scipy<1.16' hypothesis pytest pytest-timeout pytest-xdist
	@PYTHONPATH=. $(OLDEST)/bin/python -m pytest tests/test_losses.py tests/test_gradients.py tests/test_jax.py tests/test_jax_ranks.py \
	  tests/test_keras.py tests/test_readme.py tests/test_tensorflow.py tests/test_torch.py tests/test_torch_programs.py $(ARGS)
	@PYTHONPATH=. $(OLDEST)/bin/python -m sincere_spec verify --framework numpy

lint: install
	$(IN)/ruff check .
	$(IN)/ruff format --check .
	$(IN)/mypy

format: install
	$(IN)/ruff check --fix .
	$(IN)/ruff format .

install: $(INSTALLED)

# Done again when a requirement changes. An environment that was left half-made is completed; a broken one is made anew.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo 'sincere-spec needs Python 3.10 or later; name one: make PYTHON=python3.11'; exit 1; }
	@$(IN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) \
	  || { echo 'no environment could be made in $(VENV): is the venv module (python3-venv) installed?'; exit 1; }
	@echo 'Installing sincere-spec with PyTorch, JAX, TensorFlow and the tools into $(VENV), about 5 GB: a few minutes.'
	@$(IN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,test]' \
	  || { echo 'The installation failed, see above. Run the same command again to go on from here.'; exit 1; }
	@touch $@

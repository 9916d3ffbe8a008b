# Two commands on a fresh clone do everything. Each makes .venv and installs into it first, if that is not done yet.
#
#   make verify     every loss, in every framework, against the oracle and on real data
#   make test       the tests
#   make bench      speed and memory, against the plain formulas and peers: hours; ARGS=--quick for minutes
#
# ARGS goes to the command: make test ARGS="-k sincere". PYTHON makes the environment: make test PYTHON=python3.12

PYTHON    ?= python3
VENV      := .venv
IN        := $(VENV)/bin
# The install links each module, so it is made again when their list changes.
INSTALLED := $(VENV)/.installed-$(shell find sincere_spec backends conformance -name '*.py' | sort | cksum | cut -d' ' -f1)
ARGS      ?=

.DEFAULT_GOAL := help
.PHONY: help install verify test bench lint format

help:
	@sed -n 's/^#   //p' Makefile

verify: install
	@$(IN)/sincere-spec verify $(ARGS)

test: install
	@$(IN)/python -m pytest $(ARGS)

# matplotlib and the peers are no part of the environment that the other two commands need.
bench: install
	@$(IN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(IN)/sincere-spec bench $(ARGS)
	@$(IN)/sincere-spec bench --render

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

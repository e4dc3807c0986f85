# Two commands: `make demo` and `make test`. Both set up everything they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := data/demo
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test lint clean

help:
	@echo "make demo   the whole job on a synthetic data set: preprocess, train, test"
	@echo "make test   lint and the test suite"
	@echo "make lint   lint alone"
	@echo "make clean  remove the environment and the demo's files"

$(VENV)/run: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -r requirements.txt
	@touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/run
	$(BIN)/pip install -q -r requirements-dev.txt
	@touch $@

demo: $(VENV)/run
	$(BIN)/python preprocess.py --demo --data-dir $(DEMO) --method stft
	$(BIN)/python train.py -c configs/demo.json
	$(BIN)/python test.py -r saved/model_best.pth
	@echo
	@echo "Look at the run:  $(BIN)/tensorboard --logdir saved/log"

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) $(DEMO)

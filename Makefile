# `make demo` and `make test` set up everything they need in .venv; `make bench` needs data/SPRSound too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := data/demo
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test lint bench reproduce clean

help:
	@echo "make demo   the whole job on a synthetic data set: preprocess, train, test"
	@echo "make test   lint and the test suite"
	@echo "make lint   lint alone"
	@echo "make bench  the benchmarks, on data/SPRSound (under 15 minutes on 2 cores)"
	@echo "make reproduce  the table of docs/results.md anew, on data/SPRSound (hours, in the background)"
	@echo "make clean  remove the environment and the demo's files"

$(VENV)/run: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -r requirements.txt
	@touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/run
	$(BIN)/pip install -q -r requirements-dev.txt
	@touch $@

$(VENV)/bench: requirements-bench.txt $(VENV)/run
	$(BIN)/pip install -q -r requirements-bench.txt
	@touch $@

demo: $(VENV)/run
	$(BIN)/python preprocess.py --demo --data-dir $(DEMO) --method stft
	$(BIN)/python train.py -c configs/demo.json
	$(BIN)/python test.py -r saved/model_best.pth
	@echo
	@echo "Look at the run:  $(BIN)/tensorboard --logdir saved/log"

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Each stands alone and takes --help; the tables go to saved/benchmarks/.
bench: $(VENV)/bench
	$(BIN)/python benchmarks/preprocessing.py
	$(BIN)/python benchmarks/wav2vec.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/frontend.py
	$(BIN)/python benchmarks/inference.py

# A second call while it works says so; one after an interruption goes on.
reproduce: $(VENV)/run
	@$(BIN)/python benchmarks/reproduce.py

clean:
	rm -rf $(VENV) $(DEMO)

# Every target sets itself up: the first call creates .venv from the lock file, later calls find it there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo study test test-quick check docs drill bench gpu-check gpu-bench clean

setup: $(VENV)/.ready

# The stamp is written last, so that an interrupted installation is done again.
$(VENV)/.ready: requirements.lock pyproject.toml
	@echo "Setting up $(VENV): about a minute where pip has the packages in its cache."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# Two tiny models, 64 tokens a row, then one table of how they do at 64 to 4,096 tokens. A second demo replaces both.
demo: setup
	$(BIN)/gau-alpha fit --config demo.yaml --trainer.logger.version softmax --overwrite true
	$(BIN)/gau-alpha fit --config demo.yaml --trainer.logger.version cosscale --model.method cosscale --overwrite true
	$(BIN)/gau-alpha calibrate --num_documents 4 --queries_per_document 128 \
		--ckpt_path runs/demo/softmax/checkpoints/last.ckpt
	$(BIN)/gau-alpha calibrate --num_documents 4 --queries_per_document 128 \
		--ckpt_path runs/demo/cosscale/checkpoints/last.ckpt
	$(BIN)/gau-alpha extrapolate \
		--ckpt_path runs/demo/softmax/checkpoints/last.ckpt runs/demo/cosscale/checkpoints/last.ckpt \
		--methods softmax softmax_plus infoscale cosscale cosscale_infoscale windowed rerope_infoscale calibrated \
		--span_position spread --max_tokens 40960 --entropy false --distances false --output_dir runs/demo

# Hours of two cores, over several seeds; killed anywhere, the same line goes on. ARGS=--list says what is left.
study: setup
	$(BIN)/gau-alpha study configs/study/paper.yaml $(ARGS)

# All tests: about half an hour on two cores.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Those that start no process and fit no model: under 90 seconds on two cores. tests/conftest.py holds them to it.
test-quick: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not slow"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The guides and the API reference, in build/site. A warning is an error.
docs: setup
	$(BIN)/python docs/website.py build/site

# Kills a small run 20 times and interrupts it 5 times, and an evaluation and a study 10 times each: they must end as
# those left alone. Some twenty minutes, with four times as many spoiled files as the tests have.
drill: setup
	$(BIN)/python tests/distributed/preemption_stress.py
	FUZZ_SHARE=1 $(BIN)/python -m pytest tests/cli/test_file_fuzz.py -q -k every_field
	EVALUATION_KILLS=10 $(BIN)/python -m pytest tests/cli/test_interruption.py -q -k killed
	STUDY_KILLS=10 $(BIN)/python -m pytest tests/cli/study/test_study.py -q -k killed

# About half an hour; results go to tests/benchmarks/results. Nothing else should run meanwhile.
bench: setup
	$(BIN)/python tests/benchmarks/run.py

# On a machine with a GPU, in the environment whose torch knows it; the lock's torch does not. Results go to
# tests/benchmarks/results/<card>.md. The checks take up to four minutes, the benchmark up to five.
GPU_PYTHON ?= python3

gpu-check:
	$(GPU_PYTHON) -m pytest tests/gpu -q

gpu-bench:
	$(GPU_PYTHON) tests/benchmarks/gpu.py

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache

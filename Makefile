# Two commands do all the set-up, `make train` and `make test`; `make app` shows the page, with the last run's model.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

train: $(READY)
	$(BIN)/python train.py trainer.max_epochs=20

app: $(READY)
	$(BIN)/castnet app

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

$(READY): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

# Resolves pyproject.toml anew; run the tests before committing what it writes.
lock:
	$(PYTHON) -m pip install --quiet --dry-run --ignore-installed --report .lock.json '.[dev]'
	$(PYTHON) .ci/lock.py .lock.json > requirements.txt
	rm .lock.json

.PHONY: train app test lint lock

# Two commands do all the set-up, `make train` and `make test`; `make app` shows the page, with the last run's model.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

train: $(READY)
	$(BIN)/python train.py trainer.max_epochs=20

# Draws 64,000 parts both ways, 112,000 and 48,000 (half an hour on two cores), and learns the weights that ship from them
# (two hours on one): from the first at random, from each of the others where the one before ended.
WEIGHTS := $(BIN)/python train.py experiment=weights
FIRST := $(WEIGHTS) data.root=data/pairs_first data.generate.n=64000
LAST := $(WEIGHTS) data.root=data/pairs_edges data.generate.n=48000 data.generate.seed=2027
AT_128 := data.image_size=128 data.oversample=1
weights: $(READY)
	$(FIRST) hydra.run.dir=runs/weights/64_first
	$(WEIGHTS) model.start=runs/weights/64_first/checkpoints/best.ckpt trainer.max_epochs=3 hydra.run.dir=runs/weights/64_second
	$(LAST) model.start=runs/weights/64_second/checkpoints/best.ckpt trainer.max_epochs=3 hydra.run.dir=runs/weights/64
	$(FIRST) $(AT_128) trainer.max_epochs=3 hydra.run.dir=runs/weights/128_first
	$(WEIGHTS) $(AT_128) model.start=runs/weights/128_first/checkpoints/best.ckpt trainer.max_epochs=1 model.lr=5e-4 \
		hydra.run.dir=runs/weights/128_second
	$(LAST) $(AT_128) model.start=runs/weights/128_second/checkpoints/best.ckpt trainer.max_epochs=1 model.lr=5e-4 \
		hydra.run.dir=runs/weights/128
	$(BIN)/python -m castnet.export.weights runs/weights/64 castnet/drawn/weights.safetensors
	$(BIN)/python -m castnet.export.weights runs/weights/128 castnet/drawn/weights_sharp.safetensors

app: $(READY)
	$(BIN)/castnet app

test: $(READY)
	$(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile

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

.PHONY: train weights app test lint lock

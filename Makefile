# Two commands do all the set-up, `make train` and `make test`; `make app` shows the page, with the last run's model.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

train: $(READY)
	$(BIN)/python train.py

# Draws parts both ways (496,000 in all, 85 minutes on two cores) and learns the weights that ship from them
# (five hours on one), at 64 pixels and at 128 in six stages: the first from random weights, each other from where the
# last one ended. Means ship: of the weights after the last two stages, and at 128 pixels after the third and the last.
# The arguments: folder of drawings, their number and seed, where to start, epochs and learning rate, folder of the run.
STAGE = $(BIN)/python train.py experiment=weights data.root=data/pairs_$(1) data.generate.n=$(2) data.generate.seed=$(3) \
	model.start=$(4) trainer.max_epochs=$(5) model.lr=$(6) hydra.run.dir=runs/weights/$(7)
END_OF = runs/weights/$(1)/checkpoints/best.ckpt
AT_128 := data.image_size=128 data.oversample=1
weights: $(READY)
	$(call STAGE,a,64000,2026,null,5,1e-3,64a)
	$(call STAGE,b,112000,2026,$(call END_OF,64a),3,1e-3,64b)
	$(call STAGE,c,48000,2027,$(call END_OF,64b),3,1e-3,64c)
	$(call STAGE,d,112000,2028,$(call END_OF,64c),5,1e-3,64d)
	$(call STAGE,e,80000,2029,$(call END_OF,64d),5,1e-3,64e)
	$(call STAGE,f,80000,2030,$(call END_OF,64e),5,1e-3,64f)
	$(call STAGE,a,64000,2026,null,3,1e-3,128a) $(AT_128)
	$(call STAGE,b,112000,2026,$(call END_OF,128a),1,5e-4,128b) $(AT_128)
	$(call STAGE,c,48000,2027,$(call END_OF,128b),1,5e-4,128c) $(AT_128)
	$(call STAGE,d,112000,2028,$(call END_OF,128c),2,1e-3,128d) $(AT_128)
	$(call STAGE,e,80000,2029,$(call END_OF,128d),2,1e-3,128e) $(AT_128)
	$(call STAGE,f,80000,2030,$(call END_OF,128e),2,1e-3,128f) $(AT_128)
	$(BIN)/python -m castnet.export.weights runs/weights/64e runs/weights/64f castnet/drawn/weights.safetensors
	$(BIN)/python -m castnet.export.weights runs/weights/128c runs/weights/128f castnet/drawn/weights_sharp.safetensors

app: $(READY)
	$(BIN)/castnet app

test: $(READY)
	$(BIN)/python -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

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

# make demo: install and run the main job on real images. make test: everything that CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: demo test clean
demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
	$(BIN)/python tests/check_wheel.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Byte-compiling once makes every later start quicker, also where Python was told not to write its caches.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV) (PyTorch is large: a minute or more)"
	$(PIP) --editable '.[sources,text,fast,adapters,demo]'
	-$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV) (PyTorch is large: a minute or more)"
	$(PIP) --editable '.[sources,text,fast,adapters,imbalance,ray,demo,dev]'
	-$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1
	touch $@

clean:
	rm -rf $(VENV) demo build

# Two commands do all the set-up: `make reproduce` and `make test`. Each makes .venv if there is none.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
JOBS   ?=
PROFILE ?= smoke

export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: install reproduce test floor wheel check docs notebooks gallery bench lock clean help

help:            ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## / - /'

install: $(STAMP)    ## .venv alone, as requirements.lock pins it

reproduce: $(STAMP)  ## run every notebook there is (PROFILE=smoke by default) into figures/
	$(BIN)/fedlora reproduce --profile $(PROFILE) $(if $(JOBS),--jobs $(JOBS))

test: $(STAMP)       ## the checks and the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

floor:               ## the tests that are not slow, with the lowest versions that pyproject.toml allows
	test -x .venv-floor/bin/uv || { $(PYTHON) -m venv .venv-floor && .venv-floor/bin/python -m pip install --quiet uv; }
	.venv-floor/bin/uv pip install --quiet --python .venv-floor/bin/python --resolution lowest-direct --editable '.[dev]'
	.venv-floor/bin/python -m pytest -q -n 2 --dist worksteal -m "not slow"

wheel: $(STAMP)      ## what `pip install` takes, into dist/
	$(BIN)/python -m hatchling build -t sdist -t wheel

check: $(STAMP)      ## ruff and mypy only
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: $(STAMP)       ## the site in build/docs/: pages, notebooks and report as they are in figures/, API
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "documentation: build/docs/index.html (with its search: $(BIN)/python -m http.server -d build/docs)"

notebooks: $(STAMP)  ## write each .ipynb anew from its .py
	$(BIN)/python tools/sync_notebooks.py

gallery: $(STAMP)    ## docs/gallery.md and the README's part anew, from the results in figures/ (PROFILE=smoke)
	$(BIN)/python tools/gallery.py --profile $(PROFILE)

bench: $(STAMP)      ## the benchmarks: ratios measured side by side
	$(BIN)/python benchmarks/federated_overhead.py --out benchmarks/results
	$(BIN)/python benchmarks/image_batches.py --out benchmarks/results
	$(BIN)/python benchmarks/layer_groups.py
	$(BIN)/python benchmarks/stacked_clients.py
	$(BIN)/python benchmarks/glue_rounds.py
	$(BIN)/python benchmarks/dp_step.py
	$(BIN)/python benchmarks/causal_lora.py
	$(BIN)/python benchmarks/depth.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/store_growth.py

lock: $(STAMP)       ## pin what is installed now
	$(BIN)/python -m pip freeze --exclude-editable | grep -v '^fedlora' | sed 's/+cpu$$//' > requirements.lock

clean:           ## remove the environment and the outputs, not the store of runs nor the gallery
	rm -rf $(VENV) .venv-floor build dist *.egg-info
	test ! -d figures || find figures -mindepth 2 -maxdepth 2 ! -path 'figures/*/gallery' -exec rm -rf {} +

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

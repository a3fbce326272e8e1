# make quickstart    set up, run the data-size ablation of the embedded study, say how to open the dashboard
# make test          set up what is missing, run all tests
# make check         format, lint, types
PYTHON ?= python3.11
JOBS   ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -gt 4 ] && echo 4 || echo $$n)
GRID   ?= quickstart
BIN    := .venv/bin
READY  := .venv/.ready

.PHONY: quickstart test check setup lexicon-models lexicon-study methods-study figures clean

quickstart: setup
	@$(BIN)/studykit batch $(GRID) --jobs $(JOBS)

test: setup
	@$(BIN)/python -m pytest

check: setup
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/pyright

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "studykit needs Python 3.11 or newer as '$(PYTHON)'; set PYTHON=..." >&2; exit 2; }
	@echo "setting up .venv (a few minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# The embedded models and the committed reference study, rebuilt from their specifications (tens of minutes).
lexicon-models: setup
	@$(BIN)/python -m studykit.models.embed

lexicon-study: setup
	@$(BIN)/studykit batch lexicon --jobs $(JOBS)

methods-study: setup
	@$(BIN)/studykit batch methods --jobs $(JOBS)

# The figures and tables of README and docs, from results/.
figures: setup
	@$(BIN)/python -m studykit.pages

clean:
	rm -rf .venv

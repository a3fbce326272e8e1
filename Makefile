# make quickstart    set up, run the data-size ablation of the embedded study, say how to open the dashboard
# make test          set up what is missing, run all tests
# make check         format, lint, types
# make bench         measure speed and memory (two hours on two cores)
PYTHON ?= python3.11
JOBS   ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -gt 4 ] && echo 4 || echo $$n)
GRID   ?= quickstart
BIN    := .venv/bin
READY  := .venv/.ready
PIP    := python -m pip install -q --disable-pip-version-check --no-compile
UV     := $(shell command -v uv 2>/dev/null)
INSTALL := $(if $(UV),$(UV) pip install -q --python $(BIN)/python,$(BIN)/$(PIP))
USED   := ipykernel.kernelapp, papermill, peft, pytest, streamlit.web.cli, studykit.study, transformers.models.llama
DEVICE ?= cpu
PEERS  := .venv-peers
STUDIES = $(filter-out report,$(shell git ls-files 'results/*/study.json' | cut -d/ -f2)) report
LIGER  := $(if $(filter cuda,$(DEVICE)),liger-kernel==0.8.5)

.PHONY: quickstart test check setup lexicon-models lexicon-study methods-study teacher-cache-study studies figures bench peers clean

quickstart: setup
	@$(BIN)/studykit batch $(GRID) --jobs $(JOBS)

# Modules are compiled where they are first used, also where the environment forbids it: tests start many processes.
test: setup
	@PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

check: setup
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/pyright

setup: $(READY)

# torch by pip in any case, whose configuration may name an index for it; the rest by uv where it is installed, which
# resolves and unpacks many times faster. Compiling all modules takes longer than both; those that are used are compiled by
# importing them once, also where the environment forbids Python to do so later.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "studykit needs Python 3.11 or newer as '$(PYTHON)'; set PYTHON=..." >&2; exit 2; }
	@echo "setting up .venv (a few minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/$(PIP) -c constraints.txt torch
	@$(INSTALL) -c constraints.txt -e '.[dev]'
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -W ignore -c "import $(USED)"
	@touch $@

# The embedded models and the committed reference study, rebuilt from their specifications (tens of minutes).
lexicon-models: setup
	@$(BIN)/python -m tools.embed

lexicon-study: setup
	@$(BIN)/studykit batch lexicon --jobs $(JOBS)

methods-study: setup
	@$(BIN)/studykit batch methods --jobs $(JOBS)

teacher-cache-study: setup
	@$(BIN)/studykit batch teacher_cache --jobs $(JOBS)

# All committed studies, one after another, some 25 core hours; studies share runs inside their own folder only.
studies: setup
	@for study in $(STUDIES); do $(BIN)/studykit batch $$study --jobs $(JOBS) || exit; done

# Speed and memory, to results/benchmarks and docs/benchmarks.md; on one GPU: make bench DEVICE=cuda; some of the scripts:
# make bench ONLY="step head". Without an environment for the peers their contestants run in .venv, or are listed with
# the reason why they cannot.
bench: setup
	@$(MAKE) -s peers || echo "no environment for the peers: going on without" >&2
	@$(BIN)/python benchmarks --device $(DEVICE) $(if $(ONLY),--only $(ONLY))
	@$(BIN)/python -m tools.pages docs/benchmarks.md

peers: $(PEERS)/.ready

$(PEERS)/.ready: constraints.txt
	@echo "setting up $(PEERS) (a few minutes the first time)"
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/$(PIP) -c constraints.txt torch
	@$(PEERS)/bin/$(PIP) -c constraints.txt trl $(LIGER)
	@touch $@

# The figures and tables of README and docs, from results/.
figures: setup
	@$(BIN)/python -m tools.pages

clean:
	rm -rf .venv $(PEERS)

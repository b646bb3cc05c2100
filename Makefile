# make run    the environment and the default experiment with its report
# make test   the environment and the tests
#                (make install LOCKED=1: with the exact versions of requirements.lock)
# make test-slow    tests of a minute or more
# make test-faults  kills, damage, full and read-only disks: docs/faults.md
# make docs   the site of the documents, in site/
# make test-slurm   the workflow on a real Slurm of one node, which it installs (Debian, root)
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install run test test-slow test-faults test-slurm docs lint lock seeds clean

STAMP := .venv/installed$(if $(LOCKED),-locked)

install: $(STAMP)

$(STAMP): pyproject.toml $(if $(LOCKED),requirements.lock)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 …")'
	@echo "Installing into .venv: some minutes (Linux: several GB with CUDA; README.md says how without)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(if $(LOCKED),--constraint requirements.lock) --editable '.[workflow,cluster,test,docs]'
	@touch $@

run: install
	$(BIN)/snakemake --cores all
	@$(BIN)/ftd show results/digits

test: install
	$(BIN)/pytest --numprocesses auto --dist worksteal

test-slow: install
	$(BIN)/pytest -m slow

test-faults: install
	$(BIN)/pytest -m faults

test-slurm: install
	PATH="$(abspath $(BIN)):$$PATH" tests/slurm/run.sh

# Strict: a broken link, a page that is missing, a docstring that cannot be read are errors.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: install docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint
	$(BIN)/hadolint Dockerfile

# The versions installed here, for LOCKED=1 and the Dockerfile. CUDA's packages are left out: torch
# itself asks for exact versions of them, and its CPU build for none.
lock: install
	$(BIN)/pip freeze --exclude-editable | grep -Ev '^(fisher|nvidia|cuda|triton)' | sed 's/+cpu$$//' > requirements.lock

# The distances of the default experiment for five base seeds: docs/digits.md and its picture.
SEEDS := 0 1 2 3 4
seeds: install
	for seed in $(SEEDS); do \
	  $(BIN)/snakemake selection --cores all --config seed=$$seed experiment=digits-seed$$seed || exit 1; \
	done
	$(BIN)/python -m evidence seeds $(SEEDS:%=results/digits-seed%) --out docs/digits.md
	$(BIN)/ftd figure matrix --results results/digits-seed0 --measure fisher --network small-cnn --statistic mean
	cp results/digits-seed0/figures/fisher-small-cnn-mean.svg docs/digits-seed0.svg

clean:
	rm -rf results .snakemake site

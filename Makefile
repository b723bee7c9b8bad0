# make demo | test | lint | bench | clean. Needs Python >= 3.11, git, make; on Debian the rest is installed when root runs it.
VENV := .venv
READY := $(VENV)/.ready
TESTABLE := $(VENV)/.testable
BIN := $(VENV)/bin
JUDGES := .judges

.PHONY: demo test lint pytest bench clean engines test-engines
.NOTPARALLEL:

demo: $(READY) engines
	@.ci/demo

test: $(TESTABLE) test-engines $(JUDGES)/.ready lint pytest

lint: $(TESTABLE)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy preserve
	$(BIN)/lint-imports --no-logo

pytest: $(TESTABLE)
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

bench: $(TESTABLE) test-engines
	@set -e; for script in benchmarks/*.py; do $(BIN)/python "$$script"; done

clean:
	rm -rf $(VENV) $(JUDGES) .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist

engines:
	@.ci/install-packages demo
	@.ci/install-apptainer --or-docker

test-engines:
	@.ci/install-packages test
	@.ci/install-apptainer

# The stamp is the last thing written: an environment that was broken off is made again.
$(READY): pyproject.toml .ci/make-venv
	@PYTHON='$(PYTHON)' .ci/make-venv $(VENV)
	@touch $@

$(TESTABLE): pyproject.toml .ci/make-venv
	@PYTHON='$(PYTHON)' .ci/make-venv $(VENV) test,lint
	@touch $(READY) $@

$(JUDGES)/.ready: .ci/make-judges .ci/keep-context .ci/judges.txt | $(READY)
	@.ci/make-judges $(BIN)/python $(JUDGES)
	@touch $@

# Two commands do all, each from a bare clone:
#   make book    builds the book into _build/html
#   make test    runs every test
# For authors:
#   make serve      shows the book while you write
#   make notebooks  runs the notebooks whose code changed, and tidies them (ALL=1: every one)
#   make bench      times minflow beside other libraries (ARGS="--part import": see its --help)
#   make lint       ruff and mypy       make format  lets ruff mend what it can
#   make clean      removes what was built (not .venv)

PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3))
BIN := .venv/bin
HTML := _build/html
# The notebooks are run by tests/test_notebooks.py: by nbval, each alone and outside the repository.
TESTS ?= tests minflow book/_ext
ARGS ?=

# What the book is made from. The API page is made from the library's docstrings.
SOURCES := _config.yml _toc.yml $(shell find book minflow -type f \
    -not -path '*/__pycache__/*' -not -path '*/.*')

.PHONY: book test serve notebooks bench lint format clean

book: $(HTML)/.complete
	@echo "The book: file://$(CURDIR)/$(HTML)/index.html"

# Sphinx shows a warning once and then remembers the page as read. So a build that failed
# forgets what it read, or the next one would pass.
# It copies styles and scripts only with a page that it builds: when they change, it builds all.
$(HTML)/.complete: .venv/.complete $(SOURCES)
	$(BIN)/jupyter-book build . $(if $(filter book/_static/%,$?),--all) \
	    --quiet -W -n --keep-going >/dev/null \
	    || { rm -rf _build/.doctrees; exit 1; }
	@touch $@

test: .venv/.complete $(HTML)/.complete
	$(BIN)/python -m pytest -n 2 --dist loadfile --doctest-modules --nbval-lax $(TESTS) $(ARGS)

serve: .venv/.complete
	$(BIN)/python tools/serve.py

notebooks: .venv/.complete
	$(BIN)/python tools/notebooks.py $(if $(ALL),--all)

bench: .venv-bench/.complete
	PYTHONPATH="$(CURDIR)" .venv-bench/bin/python benchmarks/libraries.py $(ARGS)

lint: .venv/.complete
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.complete
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf _build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/.complete: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	    || { echo "The pinned versions want Python 3.11: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --no-deps --no-build-isolation --editable .
	@touch $@

# Beside .venv, since the book must build without what it is compared with.
.venv-bench/.complete: benchmarks/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	    || { echo "The pinned versions want Python 3.11: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check \
	    -r benchmarks/requirements.txt
	@touch $@

python := .venv/bin/python
installed := .venv/.installed

.PHONY: demo test check bench clean

demo: export ASKED := $(value QUESTION)
demo: $(installed)
	@.venv/bin/agentflow demo $${ASKED:+"$$ASKED"} $(ARGS)

test: $(installed)
	@$(python) -m pytest $(ARGS)

check: $(installed)
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	$(python) -m mypy
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(python) -m pyright --pythonpath $(python)

bench: $(installed)
	@$(python) benchmarks/run.py $(ARGS)

# A candidate must be able to make environments: Debian's python3 cannot without python3-venv.
$(installed): pyproject.toml
	@set -e; \
	echo "Setting up .venv (only when it is missing or pyproject.toml has changed) ..."; \
	$(python) -c '' 2>/dev/null || rm -rf .venv; \
	if command -v uv >/dev/null 2>&1; then \
		test -d .venv || uv venv --quiet $(if $(PYTHON),--python '$(PYTHON)') .venv; \
		uv pip install --quiet --python $(python) --editable '.[dev]'; \
	else \
		for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
			test -d .venv && break; \
			"$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
			"$$candidate" -m venv .venv; \
		done; \
		test -d .venv || { echo "No Python 3.11 or newer with its venv module was found: install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }; \
		$(python) -m pip --version >/dev/null 2>&1 || $(python) -m ensurepip >/dev/null; \
		$(python) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'; \
	fi; \
	touch $@

clean:
	rm -rf .venv .bench .demo .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

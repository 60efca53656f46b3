# make demo runs the main job, make test runs every check; both build .venv first. The rest is for measuring.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint install packages clean
.DEFAULT_GOAL := demo

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@start=$$(date +%s); \
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
	$(BIN)/pip install --quiet -e '.[dev]' && touch $@ && \
	echo "installation: $$(( $$(date +%s) - start )) s"

demo: $(INSTALLED)
	@$(BIN)/edge-deploy demo --out build/demo --force

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# Debian packages that some tests need; without them those tests are skipped with a reason.
packages:
	@needed=$$(sed 's/#.*//' packages.txt | xargs); \
	if [ -n "$$needed" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  dpkg -s $$needed >/dev/null 2>&1 || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$needed; } || \
	    echo "$$needed: cannot be installed here; the tests that need them are skipped"; \
	fi

test: $(INSTALLED) packages lint
	$(BIN)/pytest -n 2 --dist loadfile

bench-%: $(INSTALLED)
	$(BIN)/python -m edge_deploy.bench.$* $(BENCH)

clean:
	rm -rf $(VENV) build dist *.egg-info

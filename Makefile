PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo fuzz kill-test mutants grids test lint types floors tests wheel-test docs glyphs clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing efface and what it needs into $(VENV): this takes a few minutes"
	$(PIP) --editable .
	touch $@

$(VENV)/testing: $(VENV)/installed constraints-play.txt
	$(PIP) --editable ".[test]"
	$(PIP) python-dateutil tzdata
	$(PIP) --no-deps --requirement constraints-play.txt
	touch $@

demo: $(VENV)/installed  ## erase a concept from the embedded model and write out/demo/report.html
	$(VENV)/bin/efface demo --out out/demo

test: lint types floors tests  ## everything that must hold before a change lands

lint: $(VENV)/testing
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/testing
	$(VENV)/bin/pyright

floors: $(VENV)/testing
	$(VENV)/bin/lint-imports

tests: $(VENV)/testing
	$(VENV)/bin/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

fuzz: $(VENV)/testing  ## damage 100,000 files of every reader: each must be read, or refused by name
	PYTHONPATH=src:tests $(VENV)/bin/python tests/fuzz.py --cases 100000

kill-test: $(VENV)/testing  ## kill every command that writes, 200 times in all: a rerun must end as if nothing had happened
	PYTHONPATH=src:tests $(VENV)/bin/python tests/kills.py --kills 200

mutants: $(VENV)/testing  ## change what decides records in small ways, and list the changes that no test notices
	PYTHONPATH=src:tests $(VENV)/bin/python tests/mutants.py

grids: $(VENV)/testing  ## run every grid of a paper or a claim from end to end on tiny random models, cut short
	PYTHONPATH=src:tests $(VENV)/bin/python tests/paper_grids.py
	PYTHONPATH=src:tests $(VENV)/bin/python tests/evidence_grids.py

wheel-test: $(VENV)/testing  ## install the wheel into an empty environment and run its demo
	$(VENV)/bin/python tests/wheel.py

docs: $(VENV)/installed  ## build the documentation as a site in build/site; a broken link is an error
	$(PIP) --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet

glyphs: $(VENV)/installed  ## make the embedded model again, stage by stage; resumes where it stopped
	$(PIP) --editable ".[glyphs]"
	$(VENV)/bin/python -m workshop.glyphs.make

clean:
	rm -rf out dist build

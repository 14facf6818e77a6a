# make demo: set up, take simulated contrast cines to a report to open (P2, reduced).
# make demo-bmode: the same for B-mode pictures (P1, reduced).
# make test: set up and pass the tests.
# make bench: measure speed and memory (hours, an idle machine) and write them into docs/benchmarks.md.
.PHONY: setup demo demo-bmode test lint bench clean
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
DEMO := workspace/demo

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,runtime,export,video,pdf,dev]'
	touch $(STAMP)

demo: setup
	test -e $(DEMO)/study/labels.csv || $(BIN)/renalkit phantom ceus -n 40 --level easy --fps 2 --seed 11 -o $(DEMO)/study
	$(BIN)/renalkit ceus cohort $(DEMO)/study/dicom --labels $(DEMO)/study/labels.csv \
		--annotations $(DEMO)/study/regions.csv --settings examples/analysis/contrast-demo.toml -o $(DEMO)/cohorts/contrast
	$(BIN)/renalkit reproduce P2 $(DEMO)/cohorts/contrast --profile demo --variant perfusion \
		--readings $(DEMO)/study/readings.csv -o $(DEMO)/runs --processes 2
	@echo
	@echo "Open the report: $(DEMO)/runs/p2-demo-perfusion/report.html"

demo-bmode: setup
	test -e $(DEMO)/images/labels.csv || $(BIN)/renalkit phantom us --pictures -n 110 --seed 11 -o $(DEMO)/images
	$(BIN)/renalkit ingest $(DEMO)/images -o $(DEMO)/cohorts/phantom
	$(BIN)/renalkit run examples/phantom-demo.toml -o $(DEMO)/runs --processes 2
	@echo
	@echo "Open the report: $(DEMO)/runs/phantom-demo/report.html"

test: setup
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: setup
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done
	$(BIN)/python docs/generate.py

clean:
	rm -rf workspace/demo build dist

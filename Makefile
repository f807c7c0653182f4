# make help lists the targets. `make setup` alone makes .venv; the others make it first if it is missing or out of date.

DEFAULT_TORCH := torch==2.13.0
DEFAULT_PYTHON := python3 python3.12 python3.11 python3.10

# What was chosen once (make TORCH="torch==2.11.0" demo) stays chosen until make clean.
ifeq ($(origin TORCH),undefined)
TORCH := $(shell cat .venv/chosen-torch 2>/dev/null || echo "$(DEFAULT_TORCH)")
endif
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell cat .venv/chosen-python 2>/dev/null || echo "$(DEFAULT_PYTHON)")
endif

# Stock fairseq 0.12.2 runs on Python 3.10 only, so its smoke test has its own environment.
PYTHON_COMPAT ?= python3.10 $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python3.10)
TORCH_COMPAT ?= torch==2.13.0

key = $(shell echo "$(1)" | cksum | cut -d' ' -f1)
READY := .venv/ready-$(call key,$(TORCH) $(PYTHON))
READY_COMPAT := .venv-3.10/ready-$(call key,$(TORCH_COMPAT) $(PYTHON_COMPAT))
INPUTS := setup.py scripts/make_venv.sh $(wildcard constraints/*.txt)
RUN := OMP_NUM_THREADS=1 .venv/bin/python

.PHONY: help setup demo demo-full compare progressive one-pass tokens zero-shot test test-fast soak check lint types structure documents format bench compat clean

help:
	@echo "make setup    make .venv with torch, fairseq and this package (PYTHON=..., TORCH=... to choose)"
	@echo "make demo     toy language: train three systems, translate and score, within five minutes on two cores"
	@echo "make demo-full  the same for longer, with Difformer and without DINOISER's clipping"
	@echo "make compare  solvers, steps, early exit and selection, on what the full demo trained"
	@echo "make progressive  halve the decoding steps of what the full demo trained, repeatedly, by distillation"
	@echo "make one-pass toy language again: train twelve systems, most of them one-pass, and compare"
	@echo "make tokens   toy language again: train eleven systems that diffuse tokens, and others, and compare"
	@echo "make zero-shot  toy language again: three languages, two of them never paired in training"
	@echo "make test     every test: about fifteen minutes on two cores"
	@echo "make test-fast  all but those that train: about two minutes on two cores"
	@echo "make soak     faults and odd inputs by the thousand: up to 40 minutes on two cores"
	@echo "make check    lint, types, structure and documents, each of which is a target, too"
	@echo "make format   rewrite the code as make check wants it"
	@echo "make bench    how fast, against fairseq and CTranslate2, a few minutes each (BENCH=... for benchmarks/run.py)"
	@echo "make compat   smoke test on Python 3.10 with stock fairseq 0.12.2 (own environment, .venv-3.10)"
	@echo "make clean    remove the environments and build products; your results in runs/ stay"

setup: $(READY)
	@echo "ready: .venv (activate with: . .venv/bin/activate)"

$(READY): $(INPUTS)
	@rm -f .venv/ready-*
	@sh scripts/make_venv.sh .venv "$(TORCH)" $(PYTHON)
	@echo "$(TORCH)" | grep -vxF "$(DEFAULT_TORCH)" >.venv/chosen-torch || rm .venv/chosen-torch
	@echo "$(PYTHON)" | grep -vxF "$(DEFAULT_PYTHON)" >.venv/chosen-python || rm .venv/chosen-python
	@touch $@

demo: $(READY)
	$(RUN) examples/toy/demo.py

demo-full: $(READY)
	$(RUN) examples/toy/demo.py --full

compare: $(READY)
	$(RUN) examples/toy/compare.py

progressive: $(READY)
	$(RUN) examples/toy/progressive.py

one-pass: $(READY)
	$(RUN) examples/toy/one_pass.py

tokens: $(READY)
	$(RUN) examples/toy/tokens.py

zero-shot: $(READY)
	$(RUN) examples/toy/zero_shot.py

PYTEST := $(RUN) -m pytest -n auto --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(PYTEST) tests

test-fast: $(READY)
	$(PYTEST) -m "not slow" tests

soak: $(READY)
	$(PYTEST) --dist worksteal --soak tests/reliability

check: lint types structure documents

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: $(READY)
	.venv/bin/mypy

structure: $(READY)
	$(RUN) -m pytest -q tests/test_rooms.py tests/test_import_cycles.py

documents: $(READY)
	$(RUN) scripts/check_docs.py
	$(RUN) scripts/flag_tables.py --check
	$(RUN) scripts/result_tables.py --check

format: $(READY)
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	$(RUN) scripts/flag_tables.py
	$(RUN) scripts/result_tables.py

bench: $(READY)
	-.venv/bin/python -m pip install --quiet ctranslate2
	.venv/bin/python benchmarks/run.py $(BENCH)

$(READY_COMPAT): $(INPUTS)
	@rm -f .venv-3.10/ready-*
	@sh scripts/make_venv.sh .venv-3.10 "$(TORCH_COMPAT)" $(PYTHON_COMPAT)
	@touch $@

compat: $(READY_COMPAT)
	bash scripts/compat_smoke.sh .venv-3.10/bin

clean:
	rm -rf .venv .venv-3.10 build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
	@if [ -d runs ]; then echo "kept: runs/ (your results; remove it yourself if you mean to)"; fi

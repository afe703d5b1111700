# One command per habit. COMFYUI=/path/to/ComfyUI picks another host, ARGS="..." is passed on:
#   make test COMFYUI=~/ComfyUI ARGS="-k window -x"
# Where there is no make, run the python commands below.
PYTHON ?= python3
ARGS ?=
export COMFYUI

.PHONY: demo models pictures test check release-check bench bench-gpu format clean

demo:
	$(PYTHON) tools/demo.py $(ARGS)

models:
	$(PYTHON) demo/train.py $(ARGS)
	$(PYTHON) demo/teaching/cyanotype.py
	$(PYTHON) demo/evaluate.py
	$(PYTHON) demo/tiles/against_truth.py

pictures:
	$(PYTHON) tools/icon.py
	$(PYTHON) demo/pictures/steps_chart.py
	$(PYTHON) demo/tiles/against_tiles.py
	$(PYTHON) demo/compare.py
	$(PYTHON) tools/help_pictures.py
	$(PYTHON) demo/pictures/thumbnails.py
	$(PYTHON) tools/fit_table.py
	$(PYTHON) demo/page/screenshots.py

test:
	$(PYTHON) tools/test.py $(ARGS)

check:
	$(PYTHON) tools/checks.py

release-check:
	$(PYTHON) tools/release.py $(ARGS)

bench:
	$(PYTHON) benchmarks/cpu/attention.py $(ARGS)
	$(PYTHON) benchmarks/cpu/host.py
	$(PYTHON) benchmarks/cpu/families.py
	$(PYTHON) benchmarks/cpu/plan.py
	$(PYTHON) benchmarks/cpu/low_memory.py
	$(PYTHON) benchmarks/cpu/controlnet.py
	$(PYTHON) benchmarks/cpu/low_rank.py
	$(PYTHON) benchmarks/cpu/finetune.py
	$(PYTHON) benchmarks/cpu/upscale.py

bench-gpu:
	$(PYTHON) benchmarks/gpu/run.py $(ARGS)

format:
	$(PYTHON) tools/checks.py --fix

clean:
	rm -rf .venv .venv-* .host build dist .pytest_cache .ruff_cache .hypothesis

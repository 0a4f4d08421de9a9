# Every target works from a clean clone with git, make and Python 3.11 or newer (with its venv module);
# the packages come from the package index, in the versions of constraints.txt.

PYTHON ?= python3
VENV   ?= .venv
OUT    ?= out
BIN     = $(VENV)/bin
INSTALL = PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip --disable-pip-version-check install

.PHONY: help demo test lint lock clean

help:
	@echo "make demo   run the bundled network on the bundled clip, on the RTL; results in $(OUT)/"
	@echo "make test   run the tests"
	@echo "make lint   check style and common mistakes"
	@echo "make lock   write constraints.txt anew from the bounds in pyproject.toml"
	@echo "make clean  remove $(VENV)/ and $(OUT)/"

demo: $(VENV)/installed
	@mkdir -p $(OUT)
	$(BIN)/rrm-fpga infer --out $(OUT)/annotated.mp4 --compare $(OUT)/side_by_side.mp4 --sheet $(OUT)/sheet.png \
	    --json $(OUT)/frames.jsonl > $(OUT)/summary.txt
	$(BIN)/rrm-fpga analyze models/corners/corners_35t.onnx models/clips/scene.mp4 --frames 120 \
	    --charts $(OUT) >> $(OUT)/summary.txt
	@cat $(OUT)/summary.txt

test: $(VENV)/installed-test
	$(BIN)/python -m pytest

lint: $(VENV)/installed-test
	$(BIN)/ruff check

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The installation is editable, so only a change of these two files makes it stale.
$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[test,boards]'
	@touch $(VENV)/installed $@

lock:
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install '.[test,boards,train]'
	@sed -n '/^#/p' constraints.txt > constraints.new
	@$(VENV)-lock/bin/python -m pip freeze --all --exclude pip --exclude rrm-fpga \
	    | sed -n 's/^\([^@+]*==[^+]*\).*/\1/p' >> constraints.new
	@mv constraints.new constraints.txt
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) $(OUT)

# Longer checks than those of "make test"; docs/verification.md says what each does and what it found.
.PHONY: verify-cocotb verify-mutations verify-networks

verify-cocotb: $(VENV)/installed-test
	$(BIN)/python -m pytest tests/cocotb

verify-mutations: $(VENV)/installed-test
	$(BIN)/python -m tests.mutations

# All networks, rules and sizes of the array; hours. A part: python -m tests.verify_networks --help
verify-networks: $(VENV)/installed-test
	$(BIN)/python -m tests.verify_networks
	$(BIN)/python -m tests.verify_networks resnet8 resnet8-qdq --config arty_a7_100
	$(BIN)/python -m tests.verify_networks resnet8 vww-sparse83 --config sim64x1 sim64x2 sim8 sim1 --frames 2

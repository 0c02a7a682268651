# The front door. `make` alone lists the targets.

PYTHON ?= /usr/bin/python3
PREFIX ?= /usr
DESTDIR ?=
PYTEST_ARGS ?=
BENCH ?=
FUZZ ?=
RELEASE ?= 1

# A virtual environment from the hash-pinned locks, made on first use and kept outside the repository.
DEV = "$$($(PYTHON) build.py venv dev)/bin"

.PHONY: help setup demo demo-root test matrix bench fuzz build reproducible install lint format lock audit clean

help:
	@echo "make demo      show a machine booting from a disk that unlocks itself with a secret from KMS"
	@echo "make demo-root show an ordinary disk image become one that does, by one command"
	@echo "make test      install what is needed and run everything: lint, unit tests, real volumes, real boots"
	@echo "make matrix    run what takes more time than that, and print a table of it: boots of more kinds of images"
	@echo "make bench     measure: times to open volumes, bytes in the image, memory (BENCH=\"unlock several\": only these)"
	@echo "make fuzz      read 100,000 changed LUKS2 headers (FUZZ=\"MUTANTS SEED\")"
	@echo "make build     freeze the agent into build/dist/cryptpilot"
	@echo "make reproducible   build a clone of the commit elsewhere, and compare byte by byte"
	@echo "make packages  make an RPM and a DEB of the commit below build/packages (RELEASE=1)"
	@echo "make install   lay it out below DESTDIR (PREFIX=$(PREFIX))"
	@echo "make lint      ruff, mypy, shellcheck"
	@echo "make format    let ruff format the code"
	@echo "make pages     write man pages and completion from the command line's table and docs/configuration.md"
	@echo "make lock      pin the dependencies anew"
	@echo "make audit     ask which pinned releases have known vulnerabilities (needs a service that knows)"
	@echo "make clean     remove build/"

setup:
	@sh tests/lab/setup.sh

build:
	@sh tests/lab/setup.sh build
	@$(PYTHON) build.py freeze

reproducible:
	@sh tests/lab/setup.sh build
	@$(PYTHON) build.py reproduce

packages:
	@sh tests/lab/setup.sh packages
	@$(PYTHON) build.py freeze
	@$(PYTHON) build.py packages --release "$(RELEASE)"

install: build
	@$(PYTHON) build.py install --destdir "$(DESTDIR)" --prefix "$(PREFIX)"

demo: setup build
	@$(DEV)/python -m tests.demo

demo-root: setup build
	@$(DEV)/python -m tests.demo_root

# Two at a time: machines have one processor each. What is in one file shares what is slow to make; the boots, whose files
# take longest, come first.
PYTEST = CRYPTPILOT_SDK_PYTHON="$$($(PYTHON) build.py venv sdk)/bin/python" \
	$(DEV)/python -m pytest tests -n2 --dist=loadfile --no-loadscope-reorder

test: setup lint build
	@$(PYTEST) -m "not matrix or pairwise" $(PYTEST_ARGS)

matrix: setup lint build
	@$(PYTEST) -m matrix $(PYTEST_ARGS)

bench: setup build
	@$(DEV)/python -m tests.bench $(BENCH)

fuzz: setup
	@$(DEV)/python -m tests.fuzz $(FUZZ)

lint:
	@$(DEV)/ruff check .
	@$(DEV)/ruff format --check .
	@$(DEV)/mypy
	@shellcheck $$(git grep -lE '^#!.*[/ ](ba)?sh$$' -- ':!*.py')

format:
	@$(DEV)/ruff check --fix .
	@$(DEV)/ruff format .

pages:
	@$(DEV)/python -m buildlib.distribute.pages

lock:
	@$(PYTHON) build.py lock

audit:
	@$(PYTHON) build.py audit

clean:
	rm -rf build

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

# Without compiled files each process that runs tests compiles all tests again, and each program that they start all of
# its modules: a fifth of the time that `make check` takes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo demo-root check unit test matrix bench fuzz build reproducible packages install lint format pages pictures lock audit clean

help:
	@echo "make demo      show a machine booting from a disk that unlocks itself with a secret from KMS"
	@echo "make demo-root show an ordinary disk image become one that does, by one command"
	@echo "make check     lint, types, shellcheck, unit tests: no root, no apt, no machine, 70 s on 2 cores"
	@echo "make unit      the tests of it alone (PYTEST_ARGS=tests/unit/test_plan.py: only these)"
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
	@echo "make pictures  draw the SVG of docs/dev/pictures from the tables beside them"
	@echo "make lock      pin the dependencies again"
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

# PYTEST_ARGS chooses, wherever there are tests: a file, a test, or what else pytest takes, such as
# PYTEST_ARGS="tests/unit/test_plan.py -k pivot". Without a file in it, all files of the target are run.
PYTEST = CRYPTPILOT_SDK_PYTHON="$$($(PYTHON) build.py venv sdk)/bin/python" $(DEV)/python -m pytest

check:
	@$(MAKE) --no-print-directory --jobs=2 lint unit

# The fast loop, which needs neither root nor apt nor a machine. Tests wait for longer than they compute, so that there
# are more at a time than processors; each process more takes 2 s to collect. Generated cases are fewer here, and what is
# slow is left to `make test`.
UNITS = --dist=worksteal --deal-waits -o testpaths=tests/unit

unit:
	@$(PYTEST) -n6 $(UNITS) -m "not slow" --hypothesis-profile=quick $(PYTEST_ARGS)

# Two at a time: machines have one processor each. What is in one file shares what is slow to make; the files that take
# longest come first (tests/conftest.py).
MACHINES = -n2 --dist=loadfile --no-loadscope-reorder --everything

test: setup lint build
	@$(PYTEST) $(MACHINES) -m "not matrix or pairwise" $(PYTEST_ARGS)

matrix: setup lint build
	@$(PYTEST) $(MACHINES) -m matrix $(PYTEST_ARGS)

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

pictures:
	@$(DEV)/python -m buildlib.pictures

lock:
	@$(PYTHON) build.py lock

audit:
	@$(PYTHON) build.py audit

clean:
	rm -rf build

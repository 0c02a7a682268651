#!/usr/bin/env python3
"""Freeze the agent, prove that it starts where it goes, and lay out what gets installed.

Starts with nothing but Python 3.9 or newer; what more it takes, it installs into environments of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from buildlib import audit, elf, freeze, interpreter, layout, locks, manifest, python, reproduce, venv
from buildlib.base import ROOT, BuildError, digest_of_file, note
from buildlib.distribute import deb, rpm, stage

OUTPUT = Path("build/dist")
PACKAGES = Path("build/packages")
MIB = 1 << 20

_EPILOG = """\
environment:
  PYTHON            the Python of the environments for checks (default: the one that runs this)
  CRYPTPILOT_CACHE  where environments and finished bundles are kept (default: ~/.cache/cryptpilot)

See docs/packaging.md.
"""


def main() -> int:
    """Run the command line and return the exit status: 0 done, 1 failed, 2 wrong usage, 3 not known."""
    arguments = _parser().parse_args(sys.argv[1:] or ["freeze"])
    try:
        arguments.run(arguments)
    except BuildError as error:
        print(f"build.py: error: {error.what}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return error.status
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build.py",
        description="Build cryptpilot. Without a command: freeze.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    one = commands.add_parser("freeze", help="freeze the agent, unless that is done already")
    one.add_argument(
        "--output",
        type=Path,
        default=OUTPUT,
        metavar="DIR",
        help=f"put the bundle into DIR/{freeze.NAME} (default: %(default)s)",
    )
    one.set_defaults(run=_freeze)

    one = commands.add_parser("verify", help="hold a bundle against its manifest, wherever it is installed")
    one.add_argument("directory", type=Path, metavar="DIR", help="the bundle, such as /usr/libexec/cryptpilot")
    one.set_defaults(run=_verify)

    one = commands.add_parser("reproduce", help="build a clone of the commit elsewhere, and compare byte by byte")
    one.set_defaults(run=_reproduce)

    one = commands.add_parser("install", help="lay out the frozen agent and all that belongs to it")
    one.add_argument("--destdir", type=_root, default="/", metavar="DIR", help="the root (default: %(default)s)")
    one.add_argument("--prefix", type=Path, default=Path("/usr"), metavar="DIR", help="default: %(default)s")
    one.add_argument(
        "--bundle",
        type=Path,
        default=OUTPUT / freeze.NAME,
        metavar="DIR",
        help="the bundle to install (default: %(default)s)",
    )
    one.set_defaults(run=_install)

    one = commands.add_parser("packages", help="make the RPM and the DEB of the frozen agent, from what is committed")
    one.add_argument("--release", default="1", metavar="N", help="of the packages: 1, 2, ... (default: %(default)s)")
    one.add_argument("--output", type=Path, default=PACKAGES, metavar="DIR", help="default: %(default)s")
    one.add_argument(
        "--bundle", type=Path, default=OUTPUT / freeze.NAME, metavar="DIR", help="the bundle (default: %(default)s)"
    )
    one.set_defaults(run=_packages)

    one = commands.add_parser("venv", help="make the virtual environment of a lock set and print its path")
    one.add_argument("name", choices=sorted(venv.LOCK_SETS), help="build: freezes; dev: and checks; sdk: the SDK alone")
    one.set_defaults(run=_venv)

    one = commands.add_parser(
        "audit",
        help="ask which pinned releases have known vulnerabilities",
        description=f"Exit status: 0 none that matters, 1 some, {audit.NOT_KNOWN} no service could be asked.",
    )
    one.set_defaults(run=_audit)

    one = commands.add_parser("lock", help="make requirements/*.lock again from requirements/*.in (needs uv)")
    one.add_argument("--upgrade", action="store_true", help="take newer versions where there are some")
    one.set_defaults(run=_lock)
    return parser


def _freeze(arguments: argparse.Namespace) -> None:
    venv.require_locks("build")
    frozen = interpreter.interpreter()
    wanted = freeze.origin(frozen)
    output = _in_checkout(arguments.output) / freeze.NAME
    if not freeze.is_current(output, wanted):
        bundle = freeze.cached(wanted)
        if not freeze.is_current(bundle, wanted):
            _continue_within(venv.environment("build", frozen))
            bundle = freeze.freeze(frozen)
        freeze.lay_out_all(bundle, output)
    _describe(output)


def _continue_within(environment: Path) -> None:
    """Start this program again with the Python of an environment, unless it is running there."""
    if Path(sys.prefix) == environment:
        return
    within = environment / "bin/python"
    os.environ["PYTHON"] = str(python.chosen().path)
    os.execv(within, [str(within), __file__, *sys.argv[1:]])  # noqa: S606 - no shell is what is wanted


def _verify(arguments: argparse.Namespace) -> None:
    manifest.require_sound(arguments.directory)
    _describe(arguments.directory)


def _reproduce(_: argparse.Namespace) -> None:
    frozen = interpreter.interpreter()
    _continue_within(venv.environment("build", frozen))
    with tempfile.TemporaryDirectory(prefix="cryptpilot-") as name:
        place = Path(name)
        commit = reproduce.clone(place / "clone")
        first = freeze.freeze(frozen)
        note(f"building {commit} once more, with environments of its own")
        second = reproduce.build(place / "clone", place / "cache", place / "dist")
        found = reproduce.differences(first.parent, second.parent)
        if not found:
            _make_packages(first, place / "packages", "1")
            reproduce.build_packages(place / "clone", place / "cache", second, place / "packages-again")
            found = reproduce.differences(place / "packages", place / "packages-again")
    if found:
        raise BuildError(
            "two builds of the same commit are not the same:\n  " + "\n  ".join(found),
            "what differs between the two is in buildlib/reproduce.py",
        )
    print(f"{commit}: the same bytes again")
    print(f"  {_digest(first)}")


def _digest(bundle: Path) -> str:
    """Return the checksum of a bundle's manifest, which has those of all files: one that stands for the bundle."""
    return f"sha256 {digest_of_file(bundle / manifest.MANIFEST)}"


def _describe(bundle: Path) -> None:
    table = manifest.load(bundle)
    least = ", ".join(f"{kind} {version}" for kind, version in table["minimum_versions"].items())
    here = Path.cwd()
    shown = bundle.relative_to(here) if here in bundle.parents else bundle
    print(f"{shown}: cryptpilot {table['version']} with Python {table['python']}")
    print(f"  {len(table['files'])} files, {table['size'] / MIB:.1f} MiB, as the manifest has them")
    print(f"  needs of the system: {', '.join(table['system_libraries'])}")
    print(f"  at least: {least}")
    print(f"  glibc itself also loads: {', '.join(elf.LOADED_LIBRARIES)}")
    print(f"  {_digest(bundle)} of {manifest.MANIFEST}, which has those of all files")


def _install(arguments: argparse.Namespace) -> None:
    bundle = _in_checkout(arguments.bundle)
    if not bundle.is_dir():
        raise BuildError(f"{bundle}: no such bundle", "make it first: build.py freeze")
    for path in layout.install(bundle, arguments.destdir, arguments.prefix):
        print(path)


def _packages(arguments: argparse.Namespace) -> None:
    bundle, output = _in_checkout(arguments.bundle), _in_checkout(arguments.output)
    if not bundle.is_dir():
        raise BuildError(f"{bundle}: no such bundle", "make it first: build.py freeze")
    for path in _make_packages(bundle, output, arguments.release):
        print(stage.described(path))


def _make_packages(bundle: Path, output: Path, release: str) -> list[Path]:
    about = stage.facts(bundle, release, stage.commit())
    frozen = interpreter.interpreter()
    if manifest.load(bundle)["inputs"] != freeze.origin(frozen).inputs:
        raise BuildError(f"{bundle} was not made from what is checked out", "make it first: build.py freeze")
    with stage.staged(bundle, venv.environment("build", frozen), about) as root:
        return [kind.build(root, about, output) for kind in (rpm, deb)]


def _venv(arguments: argparse.Namespace) -> None:
    venv.require_locks(arguments.name)
    chosen = interpreter.interpreter() if arguments.name == "build" else python.chosen()
    print(venv.environment(arguments.name, chosen))


def _audit(_: argparse.Namespace) -> None:
    found = audit.audit()
    for one in found:
        print(f"{one.package} {one.version}: {', '.join(one.names)}; fixed in: {', '.join(one.fixed) or 'none'}")
        print(f"  {audit.reason(one) or 'no one has looked at this one'}")
    new = [one for one in found if not audit.reason(one)]
    if new:
        raise BuildError(
            f"{len(new)} known vulnerabilities that no one has looked at",
            "take newer releases, build.py lock --upgrade; or say in buildlib/audit.py why one does no harm",
        )
    print(f"no known vulnerability in {' and '.join(f'requirements/{lock}.lock' for lock in audit.LOCKS)} that matters")


def _lock(arguments: argparse.Namespace) -> None:
    for path in locks.make(upgrade=arguments.upgrade):
        print(path.relative_to(ROOT))


def _root(text: str) -> Path:
    """Take an empty DESTDIR, as makefiles pass it, for what it means there."""
    return Path(text or "/").absolute()


def _in_checkout(path: Path) -> Path:
    """Take a relative default from the checkout, wherever this was started; what the user says is theirs."""
    return ROOT / path if path in (OUTPUT, OUTPUT / freeze.NAME, PACKAGES) else path.absolute()


if __name__ == "__main__":
    sys.exit(main())

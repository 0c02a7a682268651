"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path


def volume(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names one volume."""
    parser.add_argument("volume", metavar="VOLUME")


def volumes(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names one volume, or several."""
    parser.add_argument("volumes", nargs="+", metavar="VOLUME")


def json(parser: argparse.ArgumentParser | argparse._MutuallyExclusiveGroup) -> None:
    """Add the option that asks for JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def yes(parser: argparse.ArgumentParser, of: str = "") -> None:
    """Add the option that answers the question. of: what the question is about, where a command may have none."""
    parser.add_argument("-y", "--yes", action="store_true", help=f"do not ask for confirmation{of}")


def overwrite(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the option that names what a device may lose. text: its help."""
    parser.add_argument("--overwrite", action="append", default=[], metavar="KIND", help=text)


def recovery_key(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the option that asks for the recovery key. text: its help."""
    parser.add_argument("--recovery-key", action="store_true", help=text)


def signing(parser: argparse.ArgumentParser, key: str, certificate: str) -> None:
    """Add the options that have a unified kernel image signed, by these names."""
    parser.add_argument(key, type=Path, metavar="FILE", help="sign the unified kernel image with this key (PEM)")
    parser.add_argument(certificate, type=Path, metavar="FILE", help="the certificate of that key (PEM)")


def config_dir(parser: argparse.ArgumentParser, *, default: Path | None = None) -> None:
    """Add the option that names the configuration. default: None for a command, which accepts it and does not show it.

    The last one that is given counts. -d is what the existing implementation calls it.
    """
    parser.add_argument(
        "-c",
        "--config-dir",
        type=Path,
        default=default or argparse.SUPPRESS,
        metavar="DIR",
        help="read the configuration from DIR (default: /etc/cryptpilot)" if default else argparse.SUPPRESS,
    )
    parser.add_argument("-d", dest="config_dir", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def former_spelling(parser: argparse.ArgumentParser, option: str, dest: str) -> None:
    """Add the name that the existing implementation has for a switch; --help does not show it."""
    parser.add_argument(option, dest=dest, action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)

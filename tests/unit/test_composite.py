"""Where cryptsetup is given header and data: what does not take device-mapper. The rest: volumes/test_composite.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.errors import ProgramError
from cryptpilot_boot.system import composite, programs
from cryptpilot_boot.system.composite import Composite
from cryptpilot_boot.system.luks_header import Header

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = Composite("/dev/dm-0", "254:0", "98:0", 32768)
OPTIONS = "7 block_size:4096 journal_sectors:1320 interleave_sectors:32768 fix_padding"


@pytest.mark.parametrize("mode", ["J", "D"])
def test_a_mapping_is_moved_to_the_disk_and_nothing_else_of_it_changes(mode: str) -> None:
    found = composite.on_disk(f"0 161232 integrity 254:0 32768 32 {mode} {OPTIONS}\n", WHOLE)
    assert found == f"0 161232 integrity 98:0 32768 32 {mode} {OPTIONS}"


@pytest.mark.parametrize(
    "table",
    [
        "",
        "0 161232 crypt 254:0 32768 32 J 0",
        "0 161232 integrity 254:1 32768 32 J 0",
        "0 161232 integrity 254:0 4096 32 J 0",
        "0 161232 integrity 254:0 32768 32 J 0\n161232 8 linear 98:16 0",
    ],
)
def test_what_is_not_the_mapping_that_was_asked_for_is_not_moved(table: str) -> None:
    with pytest.raises(ProgramError, match="made an unexpected mapping for the integrity of the data"):
        composite.on_disk(table, WHOLE)


@pytest.mark.parametrize("version", ["2.4.0", "2.10.1", "3.0", "of another name"])
def test_a_newer_cryptsetup_gets_the_header_as_a_file(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "cryptsetup"
    script.write_text(f"#!/bin/sh\necho cryptsetup {version}\n")
    script.chmod(0o700)
    monkeypatch.setattr(programs, "find", lambda _: str(script))
    composite.takes_integrity_apart.cache_clear()
    with Header() as header, composite.place("/dev/disk", header, integrity=True) as place:
        assert place == composite.Place("/dev/disk", (f"--header={header.path}",), (header.descriptor,))
    composite.takes_integrity_apart.cache_clear()


def test_without_integrity_no_version_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find", lambda _: pytest.fail("a program was run"))
    with Header() as header, composite.place("/dev/disk", header, integrity=False) as place:
        assert place.whole is None

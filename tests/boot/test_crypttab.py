"""What systemd itself makes of crypttab and the kernel command line, beside what we take it to make of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cryptpilot_boot.config import Otp, Volume
from cryptpilot_boot.units.competing import CRYPTTAB, Competitor, Texts, find
from cryptpilot_boot.units.passing_over import DROP_IN, replacements, unless_ours
from tests.lab.tree import SHARE, in_chroot, root_tree

GENERATOR = "/usr/lib/systemd/system-generators/systemd-cryptsetup-generator"
UUID = "6d2ab1ba-5dce-4d96-a9b9-f37a5b9d97a4"
OTHER = "11111111-5dce-4d96-a9b9-f37a5b9d97a4"
ODD = [
    b"# comment /dev/data",
    b"  #comment /dev/data",
    b"plain /dev/data",
    b"\ttabs\t\t/dev/data\tnone\tluks,noauto",
    b"many /dev/data none luks more and more",
    b"one-field",
    b"",
    b"cr /dev/data none\rafter-cr /dev/data none",
    b"nul /dev/data none\0after-nul /dev/data none",
    b"dos /dev/data none luks\r",
    b"feed\f/dev/data\vnone",
    b"\xff\xfe /dev/data none",
    "größe\u00a0x /dev/data".encode(),
    b"back\\040slash%i$x /dev/data none _netdev",
    b'"quoted" /dev/data',
    f"by-uuid UUID={UUID} none".encode(),
    f"other UUID={OTHER} none".encode(),
    b"random /dev/data /dev/urandom swap",
    b"end /dev/data",
    b"x" * 300 + b" /dev/data none",  # at which systemd gives up
]
"""Lines of crypttab. All that systemd reads of them are for the device of a volume, but for "other"."""


@pytest.fixture(params=["bullseye", "bookworm"])
def release(lab: None, request: pytest.FixtureRequest) -> str:  # noqa: ARG001
    """A release that has the generator: Debian 13 has it in a package of its own."""
    return str(request.param)


def generated(release: str, work: Path, words: str = "") -> set[str]:
    """Return the names of the units that systemd makes of the crypttab in a directory.

    It fails in the end if a line has a name that no unit can have.
    """
    (work / "out").mkdir()
    settings = f"SYSTEMD_CRYPTTAB={SHARE}/crypttab SYSTEMD_PROC_CMDLINE='{words}'"
    in_chroot(
        root_tree(release),
        ["sh", "-c", f"{settings} {GENERATOR} {' '.join(3 * [f'{SHARE}/out'])} 2>&1 || :"],
        share=work,
    )
    return {path.name for path in (work / "out").glob("*.service")}


def found(text: str, words: str = "") -> set[str]:
    """Return the names of those that we put in their place."""
    data = Volume("data", "/dev/data", Otp(), Path("/x.toml"), auto_open=True)
    links = {f"/dev/disk/by-uuid/{UUID}": "/dev/data"}
    competitors = find([data], Texts(text, words), lambda path: links.get(path, path))
    assert {one.place.partition(":")[0] for one in competitors} <= {CRYPTTAB, "kernel command line"}
    return set(replacements(competitors))


def test_odd_lines_are_read_as_systemd_reads_them(release: str, tmp_path: Path) -> None:
    (tmp_path / "crypttab").write_bytes(b"\n".join(ODD))
    text = (tmp_path / "crypttab").read_bytes().decode(errors="surrogateescape")
    made = generated(release, tmp_path)
    assert {"systemd-cryptsetup@plain.service", "systemd-cryptsetup@end.service"} <= made
    assert found(text) == made - {"systemd-cryptsetup@other.service"}


@pytest.mark.parametrize(
    "words",
    [f"luks.uuid={UUID}", f"luks.uuid=luks-{UUID} quiet", f"luks.name={UUID}=my-root", f"luks=no luks.uuid={UUID}"],
)
def test_words_of_the_command_line_are_read_as_systemd_reads_them(release: str, tmp_path: Path, words: str) -> None:
    (tmp_path / "crypttab").write_text("")
    assert found("", words) == generated(release, tmp_path, words)


def test_systemd_understands_what_takes_their_place(release: str, tmp_path: Path) -> None:
    """Each unit of systemd-cryptsetup has our condition, and what is known to compete does nothing."""
    (tmp_path / "crypttab").write_text(f"old /dev/data none luks\nother UUID={OTHER} none luks\n")
    generated(release, tmp_path)
    for name, text in replacements(find_old()).items():
        (tmp_path / "early").mkdir()
        (tmp_path / "early" / name).write_text(text)
    (tmp_path / "out" / DROP_IN).parent.mkdir()
    (tmp_path / "out" / DROP_IN).write_text(unless_ours(["/dev/data", "/dev/a b%c$d'e"]))
    verify = f"SYSTEMD_UNIT_PATH={SHARE}/early:{SHARE}/out:/usr/lib/systemd/system systemd-analyze verify --man=no"
    said = in_chroot(root_tree(release), ["sh", "-c", f"{verify} cryptsetup.target 2>&1; true"], share=tmp_path)
    assert not re.search(r"45-cryptpilot|systemd-cryptsetup@old", said), said


def find_old() -> list[Competitor]:
    data = Volume("data", "/dev/data", Otp(), Path("/x.toml"), auto_open=True)
    return find([data], Texts("old /dev/data none luks\n"), lambda path: path)

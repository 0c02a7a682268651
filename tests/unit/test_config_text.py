"""Files as editors, input methods and packagers leave them: read where they can mean one thing, else named."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cryptpilot_boot.cli import main as cli
from cryptpilot_boot.config import load
from cryptpilot_boot.text import describe, mend
from tests.unit.test_config import EXEC, GUIDE_KMS, GUIDE_OTP, OIDC, OTHER, ROLE, SMALL, complaint, configure

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("text", [SMALL, GUIDE_OTP, GUIDE_KMS], ids=["small", "otp", "kms"])
def test_a_byte_order_mark_is_passed_over(tmp_path: Path, text: str) -> None:
    (plain,) = configure(tmp_path / "plain", text).volumes
    (marked,) = configure(tmp_path / "marked", f"\ufeff{text}").volumes
    assert (plain.volume, plain.dev, plain.encrypt) == (marked.volume, marked.dev, marked.encrypt)
    assert configure(tmp_path / "lines", f"\ufeff{text}".replace("\n", "\r\n")).volumes
    assert configure(tmp_path / "settings", settings="\ufeff[boot]\ntimeout = 7\n").boot.timeout == 7


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    configure(tmp_path, OTHER)
    (tmp_path / "volumes/a.toml").write_bytes(GUIDE_KMS.encode(encoding))
    config = load(tmp_path)
    name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    (problem,) = config.problems
    assert problem.what == f"{tmp_path}/volumes/a.toml: is {name} text, and TOML is UTF-8"
    assert f"iconv -f {name} -t UTF-8" in problem.hint
    assert [one.volume for one in config.volumes] == ["w"]


@pytest.mark.parametrize("encoding", ["gb18030", "latin-1", "cp1252"])
def test_an_encoding_that_is_not_known_is_found_in_its_line(tmp_path: Path, encoding: str) -> None:
    configure(tmp_path)
    text = f"# {'卷' if encoding == 'gb18030' else 'é'}\n{SMALL}"
    (tmp_path / "volumes/v.toml").write_bytes(f"\n{text}".encode(encoding))
    (problem,) = load(tmp_path).problems
    assert problem.what.endswith("v.toml: is not UTF-8 text (byte 3, in line 2)")


# A character, where it stands, the line it stands in, what it is called, and what to do.
CHARACTERS = [
    (SMALL.replace("volume =", "volume\u00a0="), "at line 1, column 7", "U+00A0, a no-break space", "ordinary space"),
    (SMALL.replace("dev = ", "dev =\u3000"), "at line 2, column 6", "U+3000, an ideographic space", "ordinary space"),
    (SMALL.replace("dev = ", "dev =\u202f"), "at line 2, column 6", "U+202F, a narrow no-break space", "ordinary"),
    (SMALL.replace("dev =", "dev \uff1d"), "at line 2, column 5", "U+FF1D, a full-width equals sign", "write = in"),
    (SMALL.replace("dev =", "dev\uff1a"), "at line 2, column 4", "U+FF1A, a full-width :", "write : in its"),
    (SMALL.replace("[encrypt", "\uff3bencrypt"), "at line 3, column 1", "U+FF3B, a full-width [", "write [ in"),
    (SMALL.replace("encrypt.", "encrypt\u3002"), "at line 3, column 9", "U+3002, an ideographic full stop", "write ."),
    (SMALL.replace('"v"', "\u201cv\u201d"), "at line 1, column 10", "U+201C, a left double quotation mark", 'write "'),
    (SMALL.replace('"v"', '"v\u201d'), "at line 1", "U+201D, a right double quotation mark", 'write " in its place'),
    (
        SMALL.replace('"v"', "'v\u2019"),
        "at end of document",
        "U+2019, a right single quotation mark, in line 1",
        "write ' in its place",
    ),
    (
        f'{EXEC}args = ["""a\n\u201d\u201d\u201d]\n',
        "at end of document",
        "U+201D, a right double quotation mark, in line 6",
        'write " in its place',
    ),
    (SMALL.replace('"v"', "\uff02v\uff02"), "at line 1, column 10", "U+FF02, a full-width quotation mark", 'write "'),
    (SMALL.replace("volume", "\u200bvolume"), "at line 1, column 1", "U+200B, a zero-width space", "remove it"),
    (SMALL.replace("volume", "vol\u200dume"), "at line 1, column 4", "U+200D, a zero-width joiner", "remove it"),
    (SMALL.replace("\n", "\u2028", 1), "at line 1, column 13", "U+2028, a line separator", "a line feed in its"),
    (SMALL.replace("\n", "\r"), "at line 1, column 13", "U+000D, a carriage return", "a line feed in its place"),
    (SMALL.replace("\n", "\n\ufeff", 1), "at line 2, column 1", "U+FEFF, a byte-order mark", "remove it"),
    (f"auto_open = \uff54rue\n{SMALL}", "at line 1, column 13", "U+FF54, a full-width t", "write t in its place"),
    (f"{EXEC}timeout = \u20135\n", "at line 5, column 11", "U+2013, an en dash", "write - in its place"),
    (f'{EXEC}args = ["a"\uff0c "b"]\n', "at line 5, column 12", "U+FF0C, a full-width ,", "write , in its place"),
    (f"v\u043elume = 3\n{SMALL}", "at line 1, column 2", 'U+043E, "\u043e"', "what is meant in its place, in ASCII"),
]


@pytest.mark.parametrize(("text", "place", "name", "todo"), CHARACTERS, ids=[case[2][:6] for case in CHARACTERS])
def test_a_character_that_looks_like_another_is_named(
    tmp_path: Path, text: str, place: str, name: str, todo: str
) -> None:
    what, hint = complaint(tmp_path, text).splitlines()
    assert "volumes/v0.toml: not valid TOML: " in what
    assert place in what
    assert what.endswith(f"; there is {name}")
    assert todo in hint


def test_a_mistake_in_ascii_has_nothing_to_do_with_characters(tmp_path: Path) -> None:
    assert "there is" not in complaint(tmp_path, "# \u201cname\u201d\n" + SMALL.replace('"v"', "'v"))
    assert "there is" not in complaint(tmp_path, SMALL.replace("=", ":", 1).replace('"v"', '"v" # \u201cname\u201d'))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (SMALL.replace('"v"', '"v\u200b"'), "U+200B, a zero-width space"),
        (SMALL.replace('"v"', '"\ufeffv"'), "U+FEFF, a byte-order mark"),
        (SMALL.replace("/dev/x", "/dev/x\u00a0"), "U+00A0, a no-break space"),
        (SMALL.replace("/dev/x", "/dev/x "), "a space"),
        (SMALL.replace("/dev/x", "/dev/x\\n"), "U+000A, a line feed"),
        (SMALL.replace("/dev/x", "/dev/x\u202e"), "U+202E, a right-to-left override"),
        (EXEC.replace("get-key", "/bin/get-key\\r"), "U+000D, a carriage return"),
        (EXEC.replace("get-key", "/bin/get-key "), "a space"),
        (f'{ROLE}\nendpoint = "kms\u3000"\n', "U+3000, an ideographic space"),
    ],
)
def test_a_character_that_does_not_show_is_named_in_a_value(tmp_path: Path, text: str, name: str) -> None:
    assert complaint(tmp_path, text).splitlines()[0].endswith(f"; it holds {name}")


def test_any_character_can_be_described() -> None:
    for char in map(chr, [*range(0x3100), *range(0xD700, 0xE000), *range(0xFE00, 0x10000), 0xE0041, 0x1F600]):
        assert describe(char).isprintable()
        assert describe(char).startswith(f"U+{ord(char):04X}, ")
        assert mend(char).isprintable()


MISPLACED = [
    (
        f'{SMALL}makefs = "ext4"\n',
        'v0.toml:4: unknown key "encrypt.otp.makefs": makefs is a key of the volume',
        "above",
    ),
    (f"{GUIDE_KMS}auto_open = true\n", "auto_open is a key of the volume", "move it above the line [encrypt.kms]"),
    # misspelt as well
    (f'{SMALL}Makefs = "ext4"\n', 'unknown key "encrypt.otp.Makefs": makefs is a key of the volume', "above the line"),
    (f"{SMALL}auto-open = true\n", "auto_open is a key of the volume", "above the line [encrypt.otp]"),
    (f"{EXEC}autoopen = true\n", "auto_open is a key of the volume", "above the line [encrypt.exec]"),
    (f'{EXEC}makfs = "ext4"\n', "makefs is a key of the volume", "above the line [encrypt.exec]"),
    (f"{EXEC}integrity = true\n", "integrity is a key of the volume", "move it above the line [encrypt.exec]"),
    ('[encrypt.otp]\nvolume = "v"\ndev = "/dev/x"\n', "v0.toml:2: unknown key", "move it above the line [encrypt.otp]"),
    ("[encrypt]\nmakefs = 'ext4'\n[encrypt.otp]\n" + SMALL.split("[")[0], "makefs is a key", "line [encrypt]"),
    (
        f'secret_name = "s"\n{GUIDE_KMS}',
        "secret_name is a key of [encrypt.kms]",
        "move it below the line [encrypt.kms]",
    ),
    (f'command = "x"\n{EXEC}', "command is a key of [encrypt.exec]", "move it below the line [encrypt.exec]"),
    (f'{SMALL}secret_name = "s"\n', "secret_name is a key of [encrypt.kms]", "only below a line [encrypt.kms]"),
    (f"{SMALL}[boot]\nverbose = true\n", 'unknown table "boot": boot is a table of global.toml', "in global.toml"),
    (f"verbose = true\n{SMALL}", "verbose is a key of [boot] of global.toml", "settings go in global.toml"),
    (
        f"{EXEC}after = 3\n",
        'unknown key "encrypt.exec.after": after is a key of [[fallback]]',
        "only below a line [[fallback]]",
    ),
    (
        f'{SMALL.partition("[")[0]}[encrypt.tpm2]\n[[fallback]]\n[fallback.exec]\ncommand = "x"\nmakefs = "ext4"\n',
        'v0.toml:7: unknown key "fallback.exec.makefs": makefs is a key of the volume',
        "move it above the line [encrypt.tpm2]",
    ),
    (
        f"{OIDC}timeout = 5\n",
        'unknown key "encrypt.oidc.kms.timeout": timeout is a key of [encrypt.oidc]',
        "move it below the line [encrypt.oidc]",
    ),
    (f'{OIDC}makefs = "ext4"\n', "makefs is a key of the volume", "move it above the line [encrypt.oidc]"),
    (SMALL.replace("[encrypt.otp]", "[otp]"), 'v0.toml:3: unknown table "otp": otp is a table', "write [encrypt.otp]"),
]


@pytest.mark.parametrize(("text", "what", "hint"), MISPLACED)
def test_a_key_in_another_place_is_sent_to_its_own(tmp_path: Path, text: str, what: str, hint: str) -> None:
    said = complaint(tmp_path, text).splitlines()
    assert what in said[0]
    assert hint in said[1]


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        (
            GUIDE_OTP,
            'unknown key "volume": volume is a key of the volume',
            "each volume in a file of its own in volumes/",
        ),
        ("verbose = true\n", 'global.toml:1: unknown key "verbose": verbose is a key', "only below a line [boot]"),
        ("timeout = 3\n[boot]\n", "timeout is a key of [boot]", "move it below the line [boot]"),
    ],
)
def test_so_in_the_global_file(tmp_path: Path, text: str, what: str, hint: str) -> None:
    said = complaint(tmp_path, settings=text).splitlines()
    assert what in said[0]
    assert hint in said[1]


# What stands beside a file in use: whether there is a word about it when there are volumes, and why it is not read.
BESIDE = [
    ("volumes/data0.conf", True, "its name does not end in .toml"),
    ("volumes/data0", True, "its name does not end in .toml"),
    ("volumes/DATA0.TOML", True, "its name does not end in .toml"),
    ("volumes/data0.toml.txt", True, "its name does not end in .toml"),
    ("data0.toml", True, "volumes are read from "),
    ("Global.toml", True, "settings are read from global.toml"),
    ("volumes/data0.toml~", False, "its name is one of a backup"),
    ("volumes/#data0.toml#", False, "its name is one of a backup"),
    ("volumes/data0.toml.bak", False, "its name is one of a backup"),
    ("volumes/data0.toml.rpmsave", False, "its name is one of a backup"),
    ("volumes/data0.toml.rpmnew", False, "its name is one of a backup"),
    ("volumes/data0.toml.dpkg-old", False, "its name is one of a backup"),
    ("volumes/.data0.toml.swp", False, "its name begins with a dot"),
    ("volumes/._data0.toml", False, "its name begins with a dot"),
    ("volumes/.data0.toml", False, "its name begins with a dot"),
    ("volumes/README", False, "its name does not end in .toml"),
]


@pytest.mark.parametrize(("name", "likely", "why"), BESIDE, ids=[case[0] for case in BESIDE])
@pytest.mark.parametrize("command", [["show"], ["config", "check"]], ids=" ".join)
def test_a_file_that_is_not_read_is_told_where_it_may_be_missed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str], name: str, likely: bool, why: str
) -> None:
    configure(tmp_path)
    (tmp_path / name).write_bytes(b"\0\5\26\7")
    argv = ["-c", str(tmp_path), *command]
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"No volumes are configured in {tmp_path}/volumes."
    assert f"note: {tmp_path}/{name} is ignored: {why}" in out
    assert err == ""
    configure(tmp_path, SMALL)
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    assert (name in out, err) == (likely, "")


@pytest.mark.parametrize("name", ["volume", "Volumes", "volumes.d"])
def test_a_directory_that_is_called_almost_like_it_is_told(tmp_path: Path, name: str) -> None:
    configure(tmp_path)
    (tmp_path / name).mkdir()
    (passed_over,) = load(tmp_path).passed_over
    assert str(passed_over) == f"{tmp_path}/{name} is ignored: volumes are read from {tmp_path}/volumes"
    assert passed_over.likely


def test_a_link_of_an_editor_to_nowhere_is_no_configuration(tmp_path: Path) -> None:
    """Emacs marks a file that is being edited so."""
    configure(tmp_path, SMALL)
    (tmp_path / "volumes/.#v0.toml").symlink_to("root@host.1234:1700000000")
    config = load(tmp_path)
    assert (len(config.volumes), config.problems) == (1, ())


def test_a_link_to_nowhere_without_a_dot_is_a_problem(tmp_path: Path) -> None:
    configure(tmp_path, SMALL)
    (tmp_path / "volumes/a.toml").symlink_to("nowhere")
    assert len(load(tmp_path).problems) == 1


@pytest.mark.parametrize("name", ["a\nconfig .toml", "a\x1b[31m.toml", "a\udcff.toml", "a\u2028.toml"])
def test_a_file_whose_name_cannot_stand_in_a_line_is_a_problem(tmp_path: Path, name: str) -> None:
    configure(tmp_path, SMALL)
    path = os.fsencode(tmp_path / "volumes" / name)
    with open(path, "w") as file:  # noqa: PTH123 - no text
        file.write(OTHER)
    config = load(tmp_path)
    (problem,) = config.problems
    assert "has a name that cannot stand in a line; it holds U+" in problem.what
    assert problem.what.isprintable()
    assert [one.volume for one in config.volumes] == ["v"]


@pytest.mark.parametrize(
    ("names", "runs"),
    [
        (["data0.toml"], True),
        ([".data0.toml", "data0.conf", "data0.toml~"], False),
        ([], False),
        (["a.toml", "b.toml"], True),
    ],
)
@pytest.mark.parametrize("first_leads_nowhere", [False, True])
def test_the_generator_runs_for_the_same_files(
    tmp_path: Path, names: list[str], runs: bool, first_leads_nowhere: bool
) -> None:
    text = (ROOT / "systemd/cryptpilot-generator").read_text()
    assert text.count("/etc/cryptpilot/") == text.count("exec /usr/bin/cryptpilot ") == 1
    text = text.replace("/etc/cryptpilot/", f"{tmp_path}/").replace("exec /usr/bin/cryptpilot ", "echo ")
    text = text.replace("/etc/systemd/system/*.*/cryptpilot.service", str(tmp_path / "volumes"))
    (tmp_path / "volumes").mkdir()
    for name in names:
        path = tmp_path / "volumes" / name
        if first_leads_nowhere and name == names[0]:
            path.symlink_to("nowhere")
        else:
            path.touch()
    found = subprocess.run(["sh", "-c", text, "sh", "normal"], capture_output=True, text=True, check=True)
    assert found.stdout == ("generator normal\n" if runs else "")

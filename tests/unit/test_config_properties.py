"""Whatever stands in the files: what is loaded is valid, what is not is told with its file, and nothing is told of it.

The documents begin as a KMS volume that is right, and are then damaged as editors, scripts and people damage them.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptpilot_boot.commands import initrd
from cryptpilot_boot.config import Boot, Config, Encrypt, Exec, Kms, KmsRole, load
from cryptpilot_boot.config.model import FILE_SYSTEMS, SECTOR_SIZES
from cryptpilot_boot.system import certificates, programs
from cryptpilot_boot.units.units import units

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume

PASSWORD = "pw-Zq8vW3rT6yU1"
PRIVATE_KEY = "MIIJqQIBAzCCCW8GCSqGSIb3DQEHAaCC"
CREDENTIALS = (PASSWORD, PRIVATE_KEY)

KMS = f"""\
volume = "data"
dev = "/dev/disk/by-id/virtio-data"
auto_open = true
makefs = "ext4"
integrity = false

[encrypt.kms]
kms_instance_id = "kst-1"
secret_name = "disk"
client_key = '''
{{
  "KeyId": "KAAP.1",
  "PrivateKeyData": "{PRIVATE_KEY}"
}}'''
client_key_password = "{PASSWORD}"
kms_cert_pem = \"\"\"
-----BEGIN CERTIFICATE-----
MAowAwIBATAAAwEA
-----END CERTIFICATE-----
\"\"\"
endpoint = "10.0.0.7:8443"
"""
ROLE = """\
volume = "data"
dev = "/dev/vdb"
[encrypt.kms]
auth_mode = "ecs_ram_role"
secret_name = "disk"
ecs_ram_role_name = "disk-reader"
region_id = "cn-hangzhou"
endpoint = "10.0.0.7:8443"
"""
EXEC = """\
volume = "data"
dev = "/dev/vdb"
[encrypt.exec]
command = "/usr/bin/get-key"
args = ["--name", "disk"]
timeout = 5
"""
OTP = """\
volume = "scratch"
dev = "/dev/vdc"
makefs = "ext4"
sector_size = 512
discard = true
integrity = false
[encrypt.otp]
"""
GLOBAL = """\
[boot]
verbose = true
timeout = 60
"""

# What a value may be replaced by: all types of TOML, the edges of each, and what is none of them.
VALUES = [
    *('""', '" "', '"a"', "'''\n'''", '"\\u0000"', '"\\u001b[31m"', '"\\ud800"', '"' + "x" * 5000 + '"'),
    *("true", "false", "True", "0", "-1", "3601", "1" * 5000, "0x1F", "1.5", "1e400", "nan", "-inf", "1_000"),
    *("1979-05-27", "1979-05-27T07:32:00Z", "07:32:00", "9999-99-99"),
    *("[]", "[1, 'a']", "['a', 'b']", "['\\u0000']", '["\\u0000"]', "{}", "{a = 1}", "{otp = {}}"),
    *("[" * 2000, "{a = " * 2000, "'" + "[" * 20000 + "'", ""),
    *(f'"{PASSWORD}"', f"['{PASSWORD}']", f"{{KeyId = '{PRIVATE_KEY}'}}", f"{{ 'k' = '{PASSWORD}' }}"),
    *('"/dev/x\\nconfig /etc/shadow"', '"/dev/x y"', '"/dev/x\\t"', "'/dev/disk/by-label/a\\x20b'", '"/dev/größe"'),
    *(f'"/dev/{"-" * 255}"', f'"/dev/{"x" * 256}"', f'"/dev{"/x" * 2046}"', f'"/dev{"/x" * 2100}"'),
    *(f'"{"-" * 60}"', f'"a{"-" * 54}"', f'"a{"-" * 55}"', f'"a{"=" * 99}"', f'"{"a" * 100}"', '"a\\nconfig /x"'),
    *('"/bin/get key"', '"/bin/get\\nkey"', '"/bin/ key "', '"/größe"', f'"/{"x" * 256}"', '"get-key "', '"-k"'),
    *('"/dev/../x"', '"/dev/a\\u0000"', '"../a"', '"control"', '"a-initializing"', '"-"', '"host:99999"'),
]
# A key and its value, whatever the quotes.
SETTING = re.compile(r"""^(\w+) = ('''(?s:.*?)'''|\"\"\"(?s:.*?)\"\"\"|.*)$""", re.MULTILINE)
# What may be written between any two characters.
PIECES = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        [
            *("\0", "\r", "\r\n", "\n", "\ufeff", "\u2028", "\x0b", "\x85", '"', "'''", '"""', "\\", "#", "=", "."),
            *("[", "]", "[encrypt]\n", "[[encrypt.kms]]\n", "[encrypt.otp]\n", "[encrypt.kms]\n", "{", "}", ","),
            *("\n" + "[" * 3000, "\na" + ".a" * 3000 + " = 1\n", "\n[" + " " * 3000, "\n" + "k" * 3000 + " = 1\n"),
        ]
    ),
)


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """Return a document after a few accidents, in bytes."""
    for _ in range(draw(st.integers(0, 4))):
        text = draw(st.sampled_from(ACCIDENTS))(draw, text)
    data = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(st.binary(max_size=4)) + data[place + draw(st.integers(0, 4)) :]
    return data


def _lines(draw: st.DrawFn, text: str) -> str:
    """Delete, repeat or move a line."""
    lines = text.splitlines(keepends=True) or [""]
    place, other = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
    line = lines[place]
    if draw(st.booleans()):
        del lines[place]
    if draw(st.booleans()):
        lines.insert(other, line)
    return "".join(lines)


def _value(draw: st.DrawFn, text: str) -> str:
    """Give a key another value."""
    found = list(SETTING.finditer(text))
    return _with_value(draw(st.sampled_from(found)), draw(st.sampled_from(VALUES))) if found else text


def _with_value(setting: re.Match[str], value: str) -> str:
    return setting.string[: setting.start(2)] + value + setting.string[setting.end(2) :]


def _insert(draw: st.DrawFn, text: str) -> str:
    place = draw(st.integers(0, len(text)))
    return text[:place] + draw(PIECES) + text[place:]


def _cut(draw: st.DrawFn, text: str) -> str:
    start = draw(st.integers(0, len(text)))
    return text[:start] + text[start + draw(st.integers(0, 20)) :]


def _rename(draw: st.DrawFn, text: str) -> str:
    """Misspell a word."""
    words = list(re.finditer(r"\w+", text))
    if not words:
        return text
    found = draw(st.sampled_from(words))
    return text[: found.start()] + found[0].swapcase()[::-1] + text[found.end() :]


def _lines_end_otherwise(_: st.DrawFn, text: str) -> str:
    return text.replace("\n", "\r\n")


def _bom(_: st.DrawFn, text: str) -> str:
    return "\ufeff" + text


ACCIDENTS = [_lines, _value, _value, _insert, _cut, _rename, _lines_end_otherwise, _bom]

ANY_FILE = st.one_of(*(damaged(text) for text in (KMS, ROLE, EXEC, OTP, GLOBAL)), st.binary(max_size=64))
KMS_FILE = damaged(KMS)

# the same examples on each run: a failure is the change's, not the day's
steady = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=3 * settings().max_examples,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def load_files(**files: bytes) -> Config:
    """Load a configuration made of these volumes; `settings` is global.toml."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "volumes").mkdir()
        for file, data in files.items():
            path = directory / "global.toml" if file == "settings" else directory / "volumes" / f"{file}.toml"
            path.touch(0o600)
            path.write_bytes(data)
        config = load(directory)
        for problem in config.problems:
            assert re.fullmatch(rf"{re.escape(name)}/[a-z/]+\.toml(:\d+)?: \S.*", problem.what), problem.what
        require_valid(config)
        return config


def require_valid(config: Config) -> None:
    """Assert of every value what the rest of the program takes for granted."""
    assert isinstance(config.boot.verbose, bool)
    assert type(config.boot.timeout) is int
    assert 1 <= config.boot.timeout <= 3600
    for volume in config.volumes:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9#+.:=@_-]{0,99}", volume.volume)
        assert volume.sector_size is None or (type(volume.sector_size) is int and volume.sector_size in SECTOR_SIZES)
        assert volume.discard in ((False,) if volume.integrity else (False, True))
        assert not volume.volume.endswith("-initializing")
        assert volume.volume != "control"
        assert volume.dev.startswith("/dev/")
        assert volume.dev.isprintable()
        assert " " not in volume.dev
        assert ".." not in volume.dev.split("/")
        assert max(map(len, volume.dev.encode().split(b"/"))) <= 255
        assert len(volume.dev.encode()) < 4096
        assert volume.makefs is None or volume.makefs in FILE_SYSTEMS
        assert isinstance(volume.auto_open, bool)
        assert isinstance(volume.integrity, bool)
        hash(volume)
        require_provider(volume.encrypt)
        require_units(volume)
        require_plan(config, volume)
    for of in ("volume", "dev"):
        values = [getattr(volume, of) for volume in config.volumes]
        assert len(values) == len(set(values))


def require_units(volume: Volume) -> None:
    """Assert that what a generator writes has names that a file system and systemd take, and that lead back."""
    made = units([replace(volume, auto_open=True)], f"{volume.mapper_path} /data ext4\n", [], 90)
    names = [part for path in (*made.files, *made.links, *made.masks) for part in path.split("/")]
    assert max(len(name.encode()) for name in names) <= 255
    assert all(re.fullmatch(r"(?!\.)[A-Za-z0-9:_.@\\-]+", name) for name in names)
    service = next(name for name in names if name.startswith("cryptpilot@"))
    assert unescaped(service[len("cryptpilot@") : -len(".service")]) == volume.volume
    device = f"{escaped('dev/mapper/' + volume.volume)}.device.requires"
    assert device in names
    # systemd's own units of such a device
    assert len(f"systemd-makefs@{device}".replace(".device.requires", ".service")) <= 255
    wants = f"{escaped(re.sub('/+', '/', volume.dev).strip('/').replace('/./', '/'))}.device.wants"
    assert (wants in names) == (not made.skipped)
    assert bool(made.skipped) == (len(wants) > 255)


def escaped(path: str) -> str:
    """Return what systemd-escape(1) prints of a path without its first slash, by the rules in systemd.unit(5)."""
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:_."
    codes = ["-" if byte == 0x2F else chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in path.encode()]
    return "".join(codes)


def unescaped(name: str) -> str:
    """Return what `systemd-escape --unescape` prints."""
    parts = re.findall(r"\\x([0-9a-f]{2})|(-)|([^\\-])", name)
    return b"".join(
        bytes.fromhex(code) if code else b"/" if dash else char.encode() for code, dash, char in parts
    ).decode()


def require_plan(config: Config, volume: Volume) -> None:
    """Assert that a shell which reads the plan of the initrd line by line finds what the configuration says."""
    chosen = replace(config, volumes=(replace(volume, auto_open=True, initrd=True),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "fault", lambda _: None)
        patch.setattr(certificates, "store", lambda: "/etc/ssl/certs/ca-certificates.crt")
        lines = "".join(f"{line}\n" for line in initrd.plan(chosen))
    found = [re.findall(r"^ *(\S+) +(\S.*\S|\S) *$", line)[0] for line in lines.split("\n")[:-1]]
    kinds = {"config", "program", "module", "device", "volume", "claim", "condition", "shell", "authorities", "network"}
    assert {kind for kind, _ in found} <= kinds
    assert [value for kind, value in found if kind == "device"] == [volume.dev]
    assert [value for kind, value in found if kind == "volume"] == [volume.volume]
    files = [str(path) for path in (config.directory / "global.toml", volume.source) if path.exists()]
    assert [value for kind, value in found if kind == "config"] == files
    commands = [volume.encrypt.command] if isinstance(volume.encrypt, Exec) else []
    makers = {"ext4": "mkfs.ext4", "xfs": "mkfs.xfs", "vfat": "mkfs.vfat", "swap": "mkswap"}
    made = [makers[volume.makefs]] if volume.temporary and volume.makefs else []
    integrity = ["dmsetup", "modprobe"] if volume.integrity else []
    programs_found = [value for kind, value in found if kind == "program"]
    assert programs_found == ["cryptsetup", "blkid", *integrity, *made, *commands]


def require_provider(encrypt: Encrypt) -> None:
    if isinstance(encrypt, Kms):
        values = (encrypt.secret_name, encrypt.client_key, encrypt.client_key_password, encrypt.kms_cert_pem)
        assert all(isinstance(value, str) and value.strip() for value in values)
        assert re.fullmatch(r"[!-~]+", encrypt.secret_name)
        assert encrypt.client_key_password.isprintable()
        assert encrypt.kms_cert_pem.isascii()
        assert json.loads(encrypt.client_key).keys() == {"KeyId", "PrivateKeyData"}
        assert re.fullmatch(r"[^\s/@]+", encrypt.address)
    if isinstance(encrypt, KmsRole):
        assert re.fullmatch(r"[!-~]+", encrypt.secret_name)
        assert re.fullmatch(r"[^\s/@]+", encrypt.address_in("cn-hangzhou"))
        assert re.fullmatch(r"[\w.-]+", encrypt.ecs_ram_role_name or "r")
        assert re.fullmatch(r"[a-z0-9-]+", encrypt.region_id or "r")
    if isinstance(encrypt, Exec):
        assert encrypt.command.isprintable()
        assert re.fullmatch(r"/.*|[^\s/-][^\s/]*", encrypt.command)
        assert all(isinstance(text, str) and "\0" not in text for text in encrypt.args)
        assert type(encrypt.timeout) is int
        assert 1 <= encrypt.timeout <= 3600


@steady
@given(ANY_FILE)
def test_a_volumes_file_is_valid_or_a_problem(data: bytes) -> None:
    config = load_files(v=data)
    assert len(config.volumes) + len(config.problems) == 1
    require_valid(config)


@steady
@given(st.one_of(damaged(GLOBAL), ANY_FILE))
def test_the_global_file_is_valid_or_a_problem(data: bytes) -> None:
    config = load_files(settings=data)
    assert len(config.problems) <= 1
    assert not config.problems or config.boot == Boot()
    require_valid(config)


@steady
@given(KMS_FILE)
def test_no_credential_is_told(data: bytes) -> None:
    require_discreet(load_files(v=data))


def require_discreet(config: Config) -> None:
    """Assert that nothing is told of what stands in the files, nor anything a terminal obeys."""
    said = "".join(f"{problem.what}{problem.hint}{problem!r}" for problem in config.problems)
    assert not any(secret in said for secret in CREDENTIALS)
    assert said.isprintable()
    assert not any(problem.__context__ or problem.__traceback__ for problem in config.problems)


@pytest.mark.parametrize("text", [KMS, ROLE, EXEC, OTP, GLOBAL], ids=["kms", "role", "exec", "otp", "global"])
def test_any_value_of_any_key_is_valid_or_a_problem(text: str) -> None:
    for setting in SETTING.finditer(text):
        for value in VALUES:
            data = _with_value(setting, value).encode()
            config = load_files(settings=data) if text == GLOBAL else load_files(v=data)
            assert len(config.problems) + len(config.volumes) <= 1
            require_valid(config)
            require_discreet(config)


@pytest.mark.parametrize("key", ["\u001b[31m", "a b", "volume\0", "", "\u2028"])
def test_a_key_that_is_none_is_told_discreetly(key: str) -> None:
    for setting in SETTING.finditer(KMS):
        text = KMS[: setting.start()] + f"{json.dumps(key)} = 1\n" + KMS[setting.start() :]
        config = load_files(v=text.encode())
        assert len(config.problems) == 1
        require_discreet(config)


@settings(steady, max_examples=settings().max_examples)
@given(ANY_FILE, ANY_FILE)
def test_no_file_costs_a_volume_of_another(one: bytes, other: bytes) -> None:
    """Unless it claims the same name or device."""
    alone = load_files(a=OTP.encode())
    config = load_files(a=OTP.encode(), b=one, c=other, settings=b"\xff")
    require_valid(config)
    (scratch,) = alone.volumes
    claims = [v for data in (one, other) for v in load_files(v=data).volumes]
    claimed = any(scratch.volume == claim.volume or scratch.dev == claim.dev for claim in claims)
    assert claimed == any("/a.toml" in problem.what for problem in config.problems)
    assert claimed != (scratch in [replace(volume, source=scratch.source) for volume in config.volumes])


def test_the_documents_are_right_to_begin_with() -> None:
    config = load_files(a=KMS.encode(), c=OTP.encode(), settings=GLOBAL.encode())
    assert config.problems == ()
    assert load_files(b=EXEC.encode()).problems == ()

"""The configuration: the guide's files as printed, and every mistake with its sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.config import Boot, Kms, Otp, load
from cryptpilot_boot.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptpilot_boot.config import Config

GUIDE_GLOBAL = """\
# Configuration related to cryptpilot boot service.
[boot]
# Enable this option if you want to see more log when running cryptpilot boot service in initrd stage and in system stage.
verbose = false
"""  # noqa: E501 - as the guide prints it

GUIDE_OTP = """\
# The name of resulting volume with decrypted data, which will be set up below `/dev/mapper/`.
volume = "data0"
# The path to the underlying encrypted device.
dev = "/dev/nvme1n1p1"
# Whether or not to open the LUKS2 device and set up mapping during booting. The default value is false.
auto_open = true
# The file system to initialize on the volume. Allowed values are ["swap", "ext4", "xfs", "vfat"]. If is not specified, or the device is not "empty", i.e. it contains any signature, the operation will be skipped.
makefs = "ext4"
# Whether or not to enable support for data integrity. The default value is false. Note that integrity cannot prevent a replay (rollback) attack.
integrity = true

# One Time Password (Temporary volume)
[encrypt.otp]
"""  # noqa: E501 - as the guide prints it

GUIDE_KMS = (
    GUIDE_OTP.partition("# One Time Password")[0]
    + """\
# Aliyun KMS
[encrypt.kms]
# The id of KMS instance
kms_instance_id = "kst-XXXXXXXXX"
# The name of the secret store in the KMS instance.
secret_name = "XXXXXXXXX"
# Content of the clientKey_****.json file.
client_key = '''
{
  "KeyId": "KAAP.XXXXXXXXX",
  "PrivateKeyData": "XXXXXXXXX"
}'''
# Content of the clientKey_****_Password.txt file.
client_key_password = "XXXXXXXXX"
# The CA cert of the KMS (the content of PrivateKmsCA_kst-******.pem file).
kms_cert_pem = \"\"\"
-----BEGIN CERTIFICATE-----
XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX
XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX
-----END CERTIFICATE-----
\"\"\"
"""
)


def configure(directory: Path, *volumes: str, settings: str = "") -> Config:
    """Write the files into `directory` as v0.toml, v1.toml, ... and load them."""
    (directory / "volumes").mkdir(parents=True, exist_ok=True)
    if settings:
        (directory / "global.toml").write_text(settings)
    for number, text in enumerate(volumes):
        file = directory / "volumes" / f"v{number}.toml"
        file.write_text(text)
        file.chmod(0o600)
    return load(directory)


def complaint(directory: Path, *volumes: str, settings: str = "") -> str:
    """Return what is said of files that cannot be used, the hint in a second line."""
    with pytest.raises(ConfigError) as caught:
        configure(directory, *volumes, settings=settings)
    return f"{caught.value.what}\n{caught.value.hint}".replace(f"{directory}/", "").strip()


def test_the_guides_files_parse_unchanged(tmp_path: Path) -> None:
    config = configure(tmp_path, GUIDE_OTP, settings=GUIDE_GLOBAL)
    (otp,) = config.volumes
    assert config.boot == Boot(verbose=False)
    assert (otp.volume, otp.dev, otp.auto_open) == ("data0", "/dev/nvme1n1p1", True)
    assert (otp.makefs, otp.integrity, otp.encrypt) == ("ext4", True, Otp())

    (kms,) = configure(tmp_path, GUIDE_KMS).volumes
    assert isinstance(kms.encrypt, Kms)
    assert kms.encrypt.kms_instance_id == "kst-XXXXXXXXX"
    assert kms.encrypt.address == "kst-XXXXXXXXX.cryptoservice.kms.aliyuncs.com"
    assert kms.encrypt.secret_name == "XXXXXXXXX"
    assert '"KeyId": "KAAP.XXXXXXXXX"' in kms.encrypt.client_key
    assert kms.encrypt.kms_cert_pem.startswith("-----BEGIN CERTIFICATE-----")


def test_what_is_left_out_has_the_documented_default(tmp_path: Path) -> None:
    config = configure(tmp_path, 'volume = "v"\ndev = "/dev/x"\n[encrypt.otp]\n')
    (volume,) = config.volumes
    assert config.boot == Boot(verbose=False, timeout=90)
    assert (volume.auto_open, volume.makefs, volume.integrity) == (False, None, False)


def test_an_endpoint_takes_the_place_of_the_instances_own_name(tmp_path: Path) -> None:
    (volume,) = configure(tmp_path, GUIDE_KMS + 'endpoint = "10.0.0.7:8443"\n').volumes
    assert isinstance(volume.encrypt, Kms)
    assert volume.encrypt.address == "10.0.0.7:8443"


def test_a_new_machine_has_no_volumes_yet(tmp_path: Path) -> None:
    assert load(tmp_path).volumes == ()


SMALL = 'volume = "v"\ndev = "/dev/x"\n[encrypt.otp]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SMALL.replace("volume", "volum"), 'volumes/v0.toml:1: unknown key "volum" (did you mean "volume"?)'),
        ("auto_opne = true\n" + SMALL, 'volumes/v0.toml:1: unknown key "auto_opne" (did you mean "auto_open"?)'),
        ('auto_open = "yes"\n' + SMALL, 'volumes/v0.toml:1: "auto_open" must be true or false'),
        ("integrity = 1\n" + SMALL, 'volumes/v0.toml:1: "integrity" must be true or false'),
        ('makefs = "ext3"\n' + SMALL, 'volumes/v0.toml:1: "makefs" must be one of swap, ext4, xfs, vfat'),
        (SMALL.replace('"v"', '"a/b"'), 'volumes/v0.toml:1: "volume" is no legal name below /dev/mapper'),
        (SMALL.replace('"v"', '"control"'), 'volumes/v0.toml:1: "volume" is no legal name below /dev/mapper'),
        (SMALL.replace('"v"', '"v-initializing"'), 'volumes/v0.toml:1: "volume" is no legal name below /dev/mapper'),
        (SMALL.replace('"v"', '"-v"'), 'volumes/v0.toml:1: "volume" is no legal name below /dev/mapper'),
        (SMALL.replace("/dev/x", "sda1"), 'volumes/v0.toml:2: "dev" must be a path below /dev'),
        (SMALL.replace("/dev/x", "/dev/../etc/passwd"), 'volumes/v0.toml:2: "dev" must be a path below /dev'),
        (SMALL.replace("[encrypt.otp]", "[encrypt.opt]"), 'unknown table "encrypt.opt" (did you mean "otp"?)'),
        (SMALL.replace("[encrypt.otp]", "[encrypt]"), "exactly one of [encrypt.otp] or [encrypt.kms] is needed"),
        (SMALL + "length = 3\n", 'volumes/v0.toml:4: unknown key "encrypt.otp.length"'),
        ('volume = "v"\ndev = "/dev/x"\n', 'volumes/v0.toml: missing key "encrypt"'),
        ('dev = "/dev/x"\n[encrypt.otp]\n', 'volumes/v0.toml: missing key "volume"'),
        ('volume = "v"\ndev = "/dev/x\n', "volumes/v0.toml: not valid TOML: Illegal character '\\n' (at line 2"),
        (GUIDE_KMS.replace("secret_name", "secretname"), '"encrypt.kms.secretname" (did you mean "secret_name"?)'),
        (GUIDE_KMS.replace("KeyId", "Key"), '"encrypt.kms.client_key" must be the content of the clientKey_'),
        (GUIDE_KMS.replace("BEGIN CERT", "BEGIN"), '"encrypt.kms.kms_cert_pem" must be the content of the Private'),
        (GUIDE_KMS + 'endpoint = "https://kms"\n', '"encrypt.kms.endpoint" must be "host" or "host:port"'),
        (GUIDE_KMS + 'endpoint = "kms:99999"\n', '"encrypt.kms.endpoint" must be "host" or "host:port"'),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    assert said in complaint(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[boot]\nverbos = true\n", 'global.toml:2: unknown key "boot.verbos" (did you mean "verbose"?)'),
        ("[boot]\nverbose = 1\n", 'global.toml:2: "boot.verbose" must be true or false'),
        ("[boot]\ntimeout = true\n", 'global.toml:2: "boot.timeout" must be a whole number'),
        ("[boot]\ntimeout = 0\n", 'global.toml:2: "boot.timeout" must be between 1 and 3600 seconds'),
        ("[bot]\n", 'global.toml:1: unknown table "bot" (did you mean "boot"?)'),
        ("boot = 3\n", 'global.toml:1: "boot" must be a table'),
    ],
)
def test_a_mistake_in_the_global_file_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    assert said in complaint(tmp_path, settings=text)


def test_two_volumes_cannot_share_a_name(tmp_path: Path) -> None:
    said = complaint(tmp_path, SMALL, SMALL.replace("/dev/x", "/dev/y"))
    assert 'volumes/v1.toml: volume "v" is already defined in volumes/v0.toml' in said


def test_two_volumes_cannot_share_a_device(tmp_path: Path) -> None:
    said = complaint(tmp_path, SMALL, SMALL.replace('"v"', '"w"'))
    assert 'volumes/v1.toml: device /dev/x already belongs to volume "v" (volumes/v0.toml)' in said


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: no such configuration directory"):
        load(tmp_path / "nowhere")


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes" / "v.toml").write_bytes(b'volume = "\xff"\n')
    with pytest.raises(ConfigError, match=r"v\.toml: is not UTF-8 text \(byte 10\)"):
        load(tmp_path)


def test_a_client_key_that_others_can_read_gets_a_warning(tmp_path: Path) -> None:
    assert configure(tmp_path, GUIDE_KMS).warnings == ()
    (tmp_path / "volumes" / "v0.toml").chmod(0o640)
    (warning,) = load(tmp_path).warnings
    assert "holds a client key and can be read by others (mode 0640): chmod 600" in warning


def test_a_one_time_password_is_no_secret_to_warn_about(tmp_path: Path) -> None:
    configure(tmp_path, GUIDE_OTP)
    (tmp_path / "volumes" / "v0.toml").chmod(0o644)
    assert load(tmp_path).warnings == ()


def test_credentials_are_never_shown(tmp_path: Path) -> None:
    text = GUIDE_KMS.replace('password = "XXXXXXXXX"', 'password = "pass-word"').replace('": "XXX', '": "prv-XXX')
    shown = repr(configure(tmp_path, text))
    assert "kst-XXXXXXXXX" in shown
    assert "pass-word" not in shown
    assert "prv-XXX" not in shown

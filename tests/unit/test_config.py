"""The configuration: the guide's files as printed, and every mistake with its sentence."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Callable

import pytest

from cryptpilot_boot.config import Boot, Exec, Kms, KmsRole, Otp, load
from cryptpilot_boot.errors import ConfigError
from cryptpilot_boot.providers import table
from cryptpilot_boot.providers.kbs import Kbs, KbsDaemon
from cryptpilot_boot.providers.oidc import Aliyun, Oidc

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

GUIDE_KMS_AS_PRINTED = (
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
# the outermost parts of a certificate, each as small as can be
PEM = "-----BEGIN CERTIFICATE-----\nMAowAwIBATAAAwEA\n-----END CERTIFICATE-----\n"
PRIVATE_KEY = "MIIJqQIBAzCCCW8G"
GUIDE_KMS = re.sub(
    r"-----BEGIN.*-----END CERTIFICATE-----\n",
    PEM,
    GUIDE_KMS_AS_PRINTED.replace('Data": "XXXXXXXXX', f'Data": "{PRIVATE_KEY}'),
    flags=re.DOTALL,
)
"""With the content of files in place of the longer placeholders."""


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
    """Return what is said of the one file that cannot be used, the hint in a second line."""
    (problem,) = configure(directory, *volumes, settings=settings).problems
    return f"{problem.what}\n{problem.hint}".replace(f"{directory}/", "").strip()


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
    assert kms.encrypt.kms_cert_pem == PEM


def test_a_placeholder_of_the_guide_is_no_file(tmp_path: Path) -> None:
    placeholder = "is a placeholder: put the content of the file in its place"
    assert f"its PrivateKeyData {placeholder}" in complaint(tmp_path, GUIDE_KMS_AS_PRINTED)
    text = GUIDE_KMS_AS_PRINTED.replace('Data": "XXXXXXXXX', f'Data": "{PRIVATE_KEY}')
    assert f"PrivateKmsCA_****.pem file: certificate 1 {placeholder}" in complaint(tmp_path, text)


def test_what_is_left_out_has_the_documented_default(tmp_path: Path) -> None:
    config = configure(tmp_path, 'volume = "v"\ndev = "/dev/x"\n[encrypt.otp]\n')
    (volume,) = config.volumes
    assert config.boot == Boot(verbose=False, timeout=90)
    assert (volume.auto_open, volume.makefs, volume.integrity) == (False, None, False)
    assert (volume.sector_size, volume.discard) == (None, False)


def test_sectors_may_be_small_and_discards_passed_on(tmp_path: Path) -> None:
    (one,) = configure(tmp_path, "sector_size = 512\ndiscard = true\nintegrity = false\n" + SMALL).volumes
    assert (one.sector_size, one.discard) == (512, True)
    (other,) = configure(tmp_path, "sector_size = 4096\ndiscard = false\nintegrity = true\n" + SMALL).volumes
    assert (other.sector_size, other.discard) == (4096, False)


def test_an_endpoint_takes_the_place_of_the_instances_own_name(tmp_path: Path) -> None:
    (volume,) = configure(tmp_path, GUIDE_KMS + 'endpoint = "10.0.0.7:8443"\n').volumes
    assert isinstance(volume.encrypt, Kms)
    assert volume.encrypt.address == "10.0.0.7:8443"


def test_a_role_takes_the_place_of_a_client_key(tmp_path: Path) -> None:
    (small,) = configure(tmp_path, ROLE).volumes
    assert small.encrypt == KmsRole("disk")
    assert (small.needs_network, small.encrypt.provider, small.encrypt.credentials) == (True, "kms", "")
    assert small.encrypt.address_in("cn-beijing") == "kms-vpc.cn-beijing.aliyuncs.com"
    more = f"""\
ecs_ram_role_name = "disk.reader-1"
region_id = "cn-hangzhou-finance"
endpoint = "kms:8443"
kms_cert_pem = \"""
{PEM}\"""
"""
    (full,) = configure(tmp_path, ROLE + more).volumes
    assert full.encrypt == KmsRole("disk", "disk.reader-1", "cn-hangzhou-finance", "kms:8443", PEM)
    assert full.encrypt.address_in("cn-beijing") == "kms:8443"
    assert isinstance(hash(full), int)


def test_with_a_role_the_instance_is_asked_where_its_ca_is_known(tmp_path: Path) -> None:
    """The existing Rust implementation demands kms_instance_id, and asks the region's shared gateway all the same."""
    (shared,) = configure(tmp_path, ROLE + 'kms_instance_id = "kst-1"\n').volumes
    assert isinstance(shared.encrypt, KmsRole)
    assert (shared.encrypt.instance, shared.encrypt.host) == (None, None)
    assert shared.encrypt.address_in("cn-beijing") == "kms-vpc.cn-beijing.aliyuncs.com"
    text = f'{ROLE}kms_instance_id = "kst-1"\nkms_cert_pem = """\n{PEM}"""\n'
    (own,) = configure(tmp_path, text).volumes
    assert isinstance(own.encrypt, KmsRole)
    assert (own.encrypt.instance, own.encrypt.kms_cert_pem) == ("kst-1", PEM)
    assert own.encrypt.address_in("cn-beijing") == "kst-1.cryptoservice.kms.aliyuncs.com"
    (other,) = configure(tmp_path, f'{text}endpoint = "kms:8443"\n').volumes
    assert isinstance(other.encrypt, KmsRole)
    assert other.encrypt.address_in("cn-beijing") == "kms:8443"


def test_full_disk_encryption_of_another_program_is_said_to_be_that(tmp_path: Path) -> None:
    configure(tmp_path, SMALL)
    (tmp_path / "fde.toml").write_text("[rootfs]\n")
    (passed,) = load(tmp_path).passed_over
    assert passed.likely
    assert f"{tmp_path}/fde.toml is ignored: it configures the full-disk encryption of cryptpilot-fde; " in str(passed)


def test_a_client_key_is_what_is_used_by_default(tmp_path: Path) -> None:
    (default,) = configure(tmp_path, GUIDE_KMS).volumes
    (said,) = configure(tmp_path, GUIDE_KMS + 'auth_mode = "client_key"\n').volumes
    assert default == said


def test_a_file_without_credentials_may_be_read_by_others(tmp_path: Path) -> None:
    configure(tmp_path, ROLE)
    (tmp_path / "volumes/v0.toml").chmod(0o644)
    assert load(tmp_path).warnings == ()


def test_a_command_may_have_arguments_and_a_time_of_its_own(tmp_path: Path) -> None:
    (small,) = configure(tmp_path, EXEC).volumes
    assert small.encrypt == Exec("get-key", (), 30)
    assert (small.temporary, small.needs_network) == (False, False)
    (full,) = configure(tmp_path, EXEC + 'args = ["-x", "a b", ""]\ntimeout = 3600\n').volumes
    assert full.encrypt == Exec("get-key", ("-x", "a b", ""), 3600)
    assert isinstance(hash(full), int)


def test_a_new_machine_has_no_volumes_yet(tmp_path: Path) -> None:
    assert load(tmp_path).volumes == ()


SMALL = 'volume = "v"\ndev = "/dev/x"\n[encrypt.otp]\n'
OTHER = SMALL.replace('"v"', '"w"').replace("/dev/x", "/dev/y")
EXEC = SMALL.replace("[encrypt.otp]", '[encrypt.exec]\ncommand = "get-key"')
OIDC = SMALL.replace(
    "[encrypt.otp]\n",
    """\
[encrypt.oidc]
command = "some-cli"
args = ["-c", "/etc/config.json", "get-token"]
key_id = "disk-decryption-key"
[encrypt.oidc.kms]
type = "aliyun"
oidc_provider_arn = "acs:ram::113511544585:oidc-provider/TestOidcIdp"
role_arn = "acs:ram::113511544585:role/testoidc"
region_id = "cn-beijing"
""",
)
KBS = SMALL.replace(
    "[encrypt.otp]\n", '[encrypt.kbs]\nkbs_url = "https://kbs.example:8080"\nkey_uri = "kbs:///default/disk/key"\n'
)
KBS_DAEMON = SMALL.replace(
    "[encrypt.otp]\n", '[encrypt.kbs]\ncdh_type = "daemon"\nkey_uri = "kbs:///default/disk/key"\n'
)
ROLE = SMALL.replace("[encrypt.otp]", '[encrypt.kms]\nauth_mode = "ecs_ram_role"\nsecret_name = "disk"')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SMALL.replace("volume", "volum"), 'volumes/v0.toml:1: unknown key "volum" (did you mean "volume"?)'),
        ("auto_opne = true\n" + SMALL, 'volumes/v0.toml:1: unknown key "auto_opne" (did you mean "auto_open"?)'),
        ('auto_open = "yes"\n' + SMALL, 'volumes/v0.toml:1: "auto_open" must be true or false'),
        ("integrity = 1\n" + SMALL, 'volumes/v0.toml:1: "integrity" must be true or false'),
        ("sector_size = 1024\n" + SMALL, 'volumes/v0.toml:1: "sector_size" must be 512 or 4096 (bytes)'),
        ("sector_size = true\n" + SMALL, 'volumes/v0.toml:1: "sector_size" must be a whole number'),
        ("discard = 1\n" + SMALL, 'volumes/v0.toml:1: "discard" must be true or false'),
        (
            "integrity = true\ndiscard = true\n" + SMALL,
            'volumes/v0.toml:2: "discard" cannot be true with integrity = true: a block that was discarded has no',
        ),
        ('makefs = "ext3"\n' + SMALL, 'volumes/v0.toml:1: "makefs" must be one of swap, ext4, xfs, vfat'),
        (SMALL.replace('"v"', '"a/b"'), 'volumes/v0.toml:1: "volume" is not a valid name below /dev/mapper'),
        (SMALL.replace('"v"', '"control"'), 'volumes/v0.toml:1: "volume" is not a valid name below /dev/mapper'),
        (SMALL.replace('"v"', '"v-initializing"'), 'volumes/v0.toml:1: "volume" is not a valid name below /dev/mapper'),
        (SMALL.replace('"v"', '"-v"'), 'volumes/v0.toml:1: "volume" is not a valid name below /dev/mapper'),
        (SMALL.replace("/dev/x", "sda1"), 'volumes/v0.toml:2: "dev" must be a path below /dev'),
        (SMALL.replace("/dev/x", "/dev/../etc/passwd"), 'volumes/v0.toml:2: "dev" must be a path below /dev'),
        (SMALL.replace("[encrypt.otp]", "[encrypt.opt]"), 'unknown table "encrypt.opt" (did you mean "otp"?)'),
        (
            SMALL.replace("[encrypt.otp]", "[encrypt]"),
            f"exactly one of {', '.join(f'[encrypt.{name}]' for name in table.names())} is needed",
        ),
        (SMALL + "[encrypt.exec]\ncommand = 'true'\n", "[encrypt.together] is needed, found 2 of them"),
        (EXEC.replace("command", "comand"), 'v0.toml:4: unknown key "encrypt.exec.comand" (did you mean "command"?)'),
        (EXEC.replace('command = "get-key"\n', ""), 'v0.toml:3: missing key "command" in [encrypt.exec]'),
        (EXEC.replace("get-key", ""), 'v0.toml:4: "encrypt.exec.command" must be an absolute path, or the name of a'),
        (EXEC.replace("get-key", "./get-key"), '"encrypt.exec.command" must be an absolute path'),
        (EXEC.replace("get-key", "get key"), '"encrypt.exec.command" must be an absolute path'),
        (EXEC.replace("get-key", "-get"), '"encrypt.exec.command" must be an absolute path'),
        (EXEC.replace("get-key", "/get\\u0000key"), '"encrypt.exec.command" must be an absolute path'),
        (EXEC.replace("get-key", "/get\\nkey"), '"encrypt.exec.command" must be an absolute path'),
        (EXEC + 'args = "x"\n', 'v0.toml:5: "encrypt.exec.args" must be a list of strings'),
        (EXEC + 'args = ["x", 1]\n', 'v0.toml:5: "encrypt.exec.args" must be a list of strings'),
        (EXEC + 'args = ["\\u0000"]\n', 'v0.toml:5: "encrypt.exec.args" must not contain NUL'),
        (EXEC + "timeout = 0\n", 'v0.toml:5: "encrypt.exec.timeout" must be between 1 and 3600 seconds'),
        (EXEC + "timeout = 3601\n", 'v0.toml:5: "encrypt.exec.timeout" must be between 1 and 3600 seconds'),
        (EXEC + "timeout = 1.5\n", 'v0.toml:5: "encrypt.exec.timeout" must be a whole number'),
        (SMALL + "length = 3\n", 'volumes/v0.toml:4: unknown key "encrypt.otp.length"'),
        (
            'volume = "v"\ndev = "/dev/x"\n',
            (
                f"volumes/v0.toml: exactly one of {', '.join(f'[encrypt.{name}]' for name in table.names())}"
                " is needed, found none of them"
            ),
        ),
        (
            'encrypt = "otp"\nvolume = "v"\ndev = "/dev/x"\n',
            'volumes/v0.toml:1: "encrypt" must be one of the tables [encrypt.otp], [encrypt.kms], ',
        ),
        ('dev = "/dev/x"\n[encrypt.otp]\n', 'volumes/v0.toml: missing key "volume"'),
        ('volume = "v"\ndev = "/dev/x\n', "volumes/v0.toml: not valid TOML: Illegal character '\\n' (at line 2"),
        (GUIDE_KMS.replace("secret_name", "secretname"), '"encrypt.kms.secretname" (did you mean "secret_name"?)'),
        (GUIDE_KMS.replace("KeyId", "Key"), '"encrypt.kms.client_key" must be the content of the clientKey_'),
        (GUIDE_KMS.replace("BEGIN CERT", "BEGIN"), '"encrypt.kms.kms_cert_pem" must be the content of the Private'),
        (ROLE.replace('secret_name = "disk"', ""), 'v0.toml:3: missing key "secret_name" in [encrypt.kms]'),
        (
            ROLE.replace("ecs_ram_role", "ecs_role"),
            'v0.toml:4: "encrypt.kms.auth_mode" must be one of client_key, ecs_ram_role (did you mean "ecs_ram_role"?)',
        ),
        (ROLE.replace('"ecs_ram_role"', "true"), 'v0.toml:4: "encrypt.kms.auth_mode" must be a string'),
        (ROLE + 'kms_instance_id = "../kst"\n', 'v0.toml:6: "encrypt.kms.kms_instance_id" must be the ID of a KMS'),
        (
            SMALL.replace("[encrypt.otp]", '[encrypt.kbs]\nkbs_url = "https://kbs"'),
            'v0.toml:3: missing key "key_uri" in [encrypt.kbs]',
        ),
        (KBS.replace("https", "ftp"), 'v0.toml:4: "encrypt.kbs.kbs_url" must be the URL of a KBS'),
        (KBS.replace(':8080"', ':8080 "'), '"encrypt.kbs.kbs_url" must be the URL of a KBS, such as "https://kbs'),
        (KBS.replace(':8080"', ':8080 "'), "; it holds a space"),
        (KBS.replace(":8080", ":80800"), '"encrypt.kbs.kbs_url" must have a port between 1 and 65535'),
        (KBS.replace("kbs:///", "kbs://kbs:0/"), '"encrypt.kbs.key_uri" must have a port between 1 and 65535'),
        (KBS.replace('/key"', '/key\\n"'), ", of letters, digits and _-.; it holds U+000A"),
        (OIDC.replace(':role/testoidc"', ':role/testoidc "'), ':role/<name>"; it holds a space'),
        (KBS.replace("/default", ""), 'v0.toml:5: "encrypt.kbs.key_uri" must be "kbs:///<repository>/<type>/<tag>"'),
        (KBS + 'kbs_root_cert = "x"\n', 'v0.toml:6: "encrypt.kbs.kbs_root_cert" must be PEM: '),
        (
            KBS + 'cdh_type = "oneshot"\n',
            '"encrypt.kbs.cdh_type" must be one of one-shot, daemon (did you mean "one-sh',
        ),
        (
            KBS + 'cdh_type = "daemon"\n',
            'v0.toml:4: "encrypt.kbs.kbs_url" has no meaning with cdh_type = "daemon"\n'
            + 'remove it, or set cdh_type = "one-shot"',
        ),
        (
            KBS + 'cdh_socket = "unix:///run/s"\n',
            'v0.toml:6: "encrypt.kbs.cdh_socket" has no meaning with cdh_type left out, which means "one-shot"',
        ),
        (KBS_DAEMON + 'cdh_socket = "/run/s"\n', '"encrypt.kbs.cdh_socket" must be "unix://" and an absolute path'),
        (OIDC.replace("[encrypt.oidc.kms]", "[encrypt.oidc.other]"), '"encrypt.oidc.other"'),
        (OIDC.partition("[encrypt.oidc.kms]")[0], 'v0.toml:3: missing key "kms" in [encrypt.oidc]'),
        (OIDC.replace("aliyun", "aws"), '"encrypt.oidc.kms.type" must be one of aliyun'),
        (OIDC.replace(":role/", ":user/"), '"encrypt.oidc.kms.role_arn" must be "acs:ram::<account, in digits>:role/'),
        (OIDC.replace("oidc-provider/", ""), '.oidc_provider_arn" must be "acs:ram::<account, in digits>:oidc-provid'),
        (OIDC.replace('"cn-beijing"', "5"), '"encrypt.oidc.kms.region_id" must be a string'),
        (OIDC.replace("region_id", "region"), 'unknown key "encrypt.oidc.kms.region" (did you mean "region_id"?)'),
        (OIDC + 'endpoint = "x y"\n', '"encrypt.oidc.kms.endpoint" must be "host" or "host:port"'),
        (OIDC.replace('region_id = "cn-beijing"\n', ""), 'missing key "region_id" in [encrypt.oidc.kms]'),
        (OIDC.replace('key_id = "disk-decryption-key"', 'key_id = "a b"'), '"encrypt.oidc.key_id" must be the name of'),
        (ROLE + "client_key = '{}'\n", 'v0.toml:6: "encrypt.kms.client_key" has no meaning with auth_mode = "ecs_ram_'),
        (ROLE + "client_key_password = 'p'\n", '"encrypt.kms.client_key_password" has no meaning with auth_mode'),
        (
            GUIDE_KMS + 'region_id = "cn-hangzhou"\n',
            '"encrypt.kms.region_id" has no meaning with auth_mode left out, which means "client_key"\n'
            + 'remove it, or set auth_mode = "ecs_ram_role"',
        ),
        (
            GUIDE_KMS + 'auth_mode = "client_key"\necs_ram_role_name = "r"\n',
            '"encrypt.kms.ecs_ram_role_name" has no meaning with auth_mode = "client_key"',
        ),
        (ROLE + 'ecs_ram_role_name = "a/../b"\n', '"encrypt.kms.ecs_ram_role_name" must be the name of a RAM role'),
        (ROLE + 'region_id = "evil.example/"\n', '"encrypt.kms.region_id" must be the ID of a region'),
        (ROLE + 'kms_cert_pem = "AAAA"\n', '"encrypt.kms.kms_cert_pem" must be PEM'),
        (ROLE + 'region = "cn-hangzhou"\n', 'v0.toml:6: unknown key "encrypt.kms.region" (did you mean "region_id"?)'),
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


def test_a_mistake_costs_its_own_volume_and_no_other(tmp_path: Path) -> None:
    config = configure(tmp_path, SMALL, "volume = 3\n", OTHER)
    assert [volume.volume for volume in config.volumes] == ["v", "w"]
    assert [problem.what for problem in config.problems] == [f'{tmp_path}/volumes/v1.toml:1: "volume" must be a string']


def test_a_mistake_in_the_global_file_leaves_its_defaults(tmp_path: Path) -> None:
    config = configure(tmp_path, SMALL, settings="[boot]\nverbose = true\ntimeout = 0\n")
    assert (config.boot, len(config.volumes), len(config.problems)) == (Boot(), 1, 1)


def test_all_mistakes_are_told(tmp_path: Path) -> None:
    config = configure(tmp_path, "volume = 3\n", "dev = 3\n", settings="x = 1\n")
    files = [problem.what.split(":")[0] for problem in config.problems]
    assert files == [f"{tmp_path}/{name}" for name in ("global.toml", "volumes/v0.toml", "volumes/v1.toml")]


def test_of_two_volumes_of_one_name_neither_is_used(tmp_path: Path) -> None:
    said = complaint(tmp_path, SMALL, OTHER, SMALL.replace("/dev/x", "/dev/z"))
    assert said.splitlines() == [
        'volumes/v2.toml: volume "v" is already defined in volumes/v0.toml',
        "give one of them another name; until then neither is used",
    ]
    assert [volume.volume for volume in load(tmp_path).volumes] == ["w"]


def test_of_two_volumes_on_one_device_neither_is_used(tmp_path: Path) -> None:
    said = complaint(tmp_path, SMALL, OTHER, SMALL.replace('"v"', '"z"'))
    assert said.splitlines() == [
        'volumes/v2.toml: device /dev/x already belongs to volume "v" (volumes/v0.toml)',
        "give each volume a device of its own; until then neither is used",
    ]
    assert [volume.volume for volume in load(tmp_path).volumes] == ["w"]


def test_a_conflict_with_a_volume_that_is_out_already_is_told_too(tmp_path: Path) -> None:
    same_name, same_device = SMALL.replace("/dev/x", "/dev/z"), SMALL.replace('"v"', '"z"')
    config = configure(tmp_path, SMALL, same_name, same_device, SMALL)
    assert (len(config.volumes), len(config.problems)) == (0, 4)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: no such configuration directory"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda file: file.write_bytes(b'volume = "\xff"\n'), "is not UTF-8 text (byte 10, in line 1)"),
        (lambda file: file.mkdir(), "is no regular file"),
        (os.mkfifo, "is no regular file"),
        (lambda file: file.symlink_to("nowhere"), "cannot be read: No such file or directory"),
        (lambda file: file.symlink_to(file), "cannot be read: Too many levels of symbolic links"),
        (lambda file: file.write_text("a = " + "[" * 100000), "not valid TOML: nested too deeply"),
        (lambda file: file.write_text("a = " + "1" * 100000), "not valid TOML: a number is too long"),
    ],
    ids=["bytes", "directory", "pipe", "link to nowhere", "link to itself", "nested", "long"],
)
@pytest.mark.parametrize("name", ["global.toml", "volumes/v.toml"])
def test_what_is_no_text_of_that_kind_is_a_problem(
    tmp_path: Path, name: str, make: Callable[[Path], None], said: str
) -> None:
    configure(tmp_path, SMALL)
    make(tmp_path / name)
    config = load(tmp_path)
    assert [problem.what for problem in config.problems] == [f"{tmp_path}/{name}: {said}"]
    assert [volume.volume for volume in config.volumes] == ["v"]


def test_volumes_that_cannot_be_listed_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "volumes").touch()
    with pytest.raises(ConfigError, match="volumes: cannot be read: Not a directory"):
        load(tmp_path)


def test_a_client_key_nested_too_deeply_is_no_client_key(tmp_path: Path) -> None:
    text = re.sub("'''.*'''", "'" + "[" * 100000 + "'", GUIDE_KMS, flags=re.DOTALL)
    assert '"encrypt.kms.client_key" must be the content of the clientKey_' in complaint(tmp_path, text)


@pytest.mark.parametrize("line", ["[" + " " * 100000, "[" * 100000, " " * 100000], ids=["[ ", "[[", "  "])
def test_a_long_line_is_looked_at_once(tmp_path: Path, line: str) -> None:
    """It may look like the beginning of a table's name to whoever looks for the line of a mistake."""
    text = EXEC + "args = ['''\n" + line + "\n''']\nnote = 1\n"
    assert 'v0.toml:8: unknown key "encrypt.exec.note"' in complaint(tmp_path, text)


def test_a_key_that_is_none_is_not_quoted(tmp_path: Path) -> None:
    """It may be anything, a value that slipped or what a terminal obeys."""
    assert complaint(tmp_path, '"\\u001b[31m" = 1\n' + SMALL).splitlines()[0] == "volumes/v0.toml: unknown key"
    assert complaint(tmp_path, f"{'k' * 41} = 1\n" + SMALL).splitlines()[0] == "volumes/v0.toml:1: unknown key"


def test_a_client_key_that_others_can_read_gets_a_warning(tmp_path: Path) -> None:
    assert configure(tmp_path, GUIDE_KMS).warnings == ()
    (tmp_path / "volumes" / "v0.toml").chmod(0o640)
    (warning,) = load(tmp_path).warnings
    assert "holds a client key and can be read by others (mode 0640): chmod 600" in warning


@pytest.mark.parametrize("text", [GUIDE_OTP, EXEC], ids=["otp", "exec"])
def test_where_there_is_no_credential_there_is_nothing_to_warn_about(tmp_path: Path, text: str) -> None:
    configure(tmp_path, text)
    (tmp_path / "volumes" / "v0.toml").chmod(0o644)
    assert load(tmp_path).warnings == ()


def test_credentials_are_never_shown(tmp_path: Path) -> None:
    text = GUIDE_KMS.replace('password = "XXXXXXXXX"', 'password = "pass-word"')
    shown = repr(configure(tmp_path, text))
    assert "kst-XXXXXXXXX" in shown
    assert "pass-word" not in shown
    assert PRIVATE_KEY not in shown
    assert "token" not in repr(configure(tmp_path, EXEC + 'args = ["token"]\n'))


def test_a_kbs_is_configured_as_the_existing_tool_has_it(tmp_path: Path) -> None:
    """Its two templates: cdh_type may be left out, and the daemon has a usual place."""
    texts = {
        "program": KBS + f'kbs_root_cert = """\n{PEM}"""\n',
        "same": KBS + 'cdh_type = "one-shot"\n',
        "daemon": KBS_DAEMON,
    }
    program, same, daemon = (configure(tmp_path / name, text).volumes[0].encrypt for name, text in texts.items())
    assert isinstance(program, Kbs)
    assert program.kbs_root_cert == PEM
    assert same == Kbs("https://kbs.example:8080", "kbs:///default/disk/key")
    assert daemon == KbsDaemon("kbs:///default/disk/key", "unix:///run/confidential-containers/cdh.sock")


def test_a_kbs_in_the_clear_is_a_warning(tmp_path: Path) -> None:
    """At `init` the key is whatever is answered: it is TLS that says by whom."""
    assert configure(tmp_path / "a", KBS).warnings == ()
    (said,) = configure(tmp_path / "b", KBS.replace("https", "http")).warnings
    assert said.startswith(f"{tmp_path}/b/volumes/v0.toml: kbs_url is not https")


def test_oidc_is_configured_as_the_existing_tool_has_it(tmp_path: Path) -> None:
    (volume,) = configure(tmp_path, OIDC).volumes
    kms = Aliyun("acs:ram::113511544585:oidc-provider/TestOidcIdp", "acs:ram::113511544585:role/testoidc", "cn-beijing")
    args = ("-c", "/etc/config.json", "get-token")
    assert volume.encrypt == Oidc("some-cli", "disk-decryption-key", kms, args)
    assert not volume.temporary

"""`[[fallback]]` in a volume's file: what it means, and what is said of a file that is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.boot.plan import image_needs
from cryptpilot_boot.config import Exec, Fallback, KmsRole, load
from cryptpilot_boot.images.record import make
from cryptpilot_boot.providers import table
from tests.unit.test_config import GUIDE_KMS

if TYPE_CHECKING:
    from pathlib import Path

    from cryptpilot_boot.config import Config

KEPT = [name for name in table.names() if name != "otp"]
"""Tables of providers that give the same key each time."""
HEAD = """\
volume = "data0"
dev = "/dev/vdb"
auto_open = true
"""
FIRST = """\
[encrypt.kms]
auth_mode = "ecs_ram_role"
secret_name = "disk"
"""
EXEC = """\
[[fallback]]
[fallback.exec]
command = "get-key"
"""
TIMED = """\
[[fallback]]
after = 40
[fallback.kms]
auth_mode = "ecs_ram_role"
secret_name = "other"
region_id = "cn-hangzhou"
"""
KMS = GUIDE_KMS[GUIDE_KMS.index("[encrypt.kms]") :].replace("encrypt", "fallback")


def configured(directory: Path, text: str) -> Config:
    directory.chmod(0o755)
    (directory / "volumes").mkdir(exist_ok=True)
    file = directory / "volumes/v.toml"
    file.write_text(text)
    file.chmod(0o600)
    return load(directory, others=False)


def test_a_file_has_its_sources_in_the_order_in_which_they_stand(tmp_path: Path) -> None:
    (volume,) = configured(tmp_path, HEAD + FIRST + TIMED + EXEC).volumes
    assert volume.encrypt == KmsRole("disk")
    assert volume.fallbacks == (
        Fallback(KmsRole("other", region_id="cn-hangzhou"), after=40),
        Fallback(Exec("get-key"), after=15),
    )
    assert volume.sources == (volume.encrypt, *(one.encrypt for one in volume.fallbacks))
    assert [volume.source_name(number) for number in range(3)] == ["encrypt", "fallback1", "fallback2"]


def test_a_file_without_is_as_ever(tmp_path: Path) -> None:
    (volume,) = configured(tmp_path, HEAD + FIRST).volumes
    assert (volume.fallbacks, volume.sources) == ((), (volume.encrypt,))


def test_an_image_carries_what_each_source_needs(tmp_path: Path) -> None:
    needs = image_needs(configured(tmp_path, HEAD + '[encrypt.exec]\ncommand = "unseal"\n' + TIMED + EXEC))
    assert (needs.programs[-2:], needs.network, needs.authorities) == (("get-key", "unseal"), True, True)
    assert make(configured(tmp_path, HEAD + FIRST + EXEC)).volumes == {"data0": "kms, exec"}


def test_who_may_read_the_credentials_of_a_fallback_is_looked_at(tmp_path: Path) -> None:
    config = configured(tmp_path, HEAD + '[encrypt.exec]\ncommand = "get-key"\n[[fallback]]\n' + KMS)
    assert config.warnings == ()
    (tmp_path / "volumes/v.toml").chmod(0o644)
    (warning,) = load(tmp_path, others=False).warnings
    assert "holds a client key and can be read by others" in warning


def last(text: str, old: str, new: str) -> str:
    before, _, after = text.rpartition(old)
    return before + new + after


SEALED = "[encrypt.tpm2]\n[[fallback]]\n[fallback.tpm2]\npcrs = [7]\n"
BOTH_SEALED = """\
[encrypt.together.exec]
command = "get-key"
[encrypt.together.tpm2]
[[fallback]]
[fallback.together.exec]
command = "get-other-key"
[fallback.together.tpm2]
"""
TWO = HEAD + FIRST + TIMED + EXEC
WRONG = {
    "a slip in a key of the second": (
        last(TWO, "command", "comand"),
        'v.toml:15: unknown key "fallback.exec.comand" (did you mean "command"?)',
    ),
    "a slip in the table": (
        last(TWO, "exec", "exce"),
        'v.toml:14: unknown table "fallback.exce" (did you mean "exec"?)',
    ),
    "a slip in after": (TWO.replace("after", "aftr"), 'v.toml:8: unknown key "fallback.aftr" (did you mean "after"?)'),
    "a slip in fallback": (
        HEAD + FIRST + EXEC.replace("[fallback", "[falback"),
        'v.toml:7: unknown key "falback" (did you mean "fallback"?)',
    ),
    "a wrong value": (
        TWO.replace("cn-hangzhou", "CN"),
        'v.toml:12: "fallback.kms.region_id" must be the ID of a region',
    ),
    "a key that is missing": (
        HEAD + FIRST + '[[fallback]]\n[fallback.kms]\nauth_mode = "ecs_ram_role"\n',
        'v.toml:8: missing key "secret_name" in [fallback.kms]',
    ),
    "no whole number": (TWO.replace("40", '"40"'), 'v.toml:8: "fallback.after" must be a whole number'),
    "too long a silence": (TWO.replace("40", "3601"), 'v.toml:8: "fallback.after" must be between 0 and 3600 seconds'),
    "one pair of brackets": (
        HEAD + FIRST + EXEC.replace("[[fallback]]\n", ""),
        'v.toml:7: "fallback" must be a list of tables: write [[fallback]]',
    ),
    "two keys that are sealed": (HEAD + SEALED, "v.toml:5: [[fallback]] has a sealed key, as [encrypt.tpm2] has"),
    "two that are sealed together with another": (
        HEAD + BOTH_SEALED,
        "v.toml:7: [[fallback]] has a key sealed to the TPM, to be used with other values, as [encrypt.together] has",
    ),
    "an empty one": (
        HEAD + FIRST + EXEC + "[[fallback]]\nafter = 5\n",
        "v.toml:10: exactly one of [fallback.kms], [fallback.kbs], ",
    ),
    "two in one": (
        HEAD + FIRST + EXEC + '[fallback.kms]\nauth_mode = "ecs_ram_role"\nsecret_name = "other"\n',
        "v.toml:7: exactly one of",
    ),
    "after in the wrong table": (
        HEAD + FIRST + EXEC + "after = 5\n",
        (
            'v.toml:10: unknown key "fallback.exec.after": after is a key of [[fallback]]\n'
            "move it below the line [[fallback]]"
        ),
    ),
    "a key of the volume": (
        HEAD + FIRST + EXEC + "integrity = true\n",
        (
            'v.toml:10: unknown key "fallback.exec.integrity": integrity is a key of the volume\n'
            "move it above the line [encrypt.kms]"
        ),
    ),
    "a one-time password": (
        HEAD + FIRST + "[[fallback]]\n[fallback.otp]\n",
        (
            "v.toml:8: [fallback.otp] gives another key at each open, which never opens what is there\n"
            "possible here: [fallback.kms], [fallback.kbs], [fallback.oidc], [fallback.exec], [fallback.tpm2],"
            " [fallback.together]"
        ),
    ),
    "a one-time password as one of several values": (
        HEAD + FIRST + "[[fallback]]\n[fallback.together.otp]\n",
        (
            "v.toml:8: [fallback.together.otp] gives another key at each open, which never opens what is there\n"
            f"possible here: {', '.join(f'[fallback.together.{name}]' for name in KEPT if name != 'together')}"
        ),
    ),
    "an unknown provider": (
        HEAD + FIRST + "[[fallback]]\n[fallback.vault]\n",
        f'v.toml:8: unknown table "fallback.vault"\nknown here: after, {", ".join(KEPT)}',
    ),
    "no provider": (
        HEAD + FIRST + "[[fallback]]\n",
        (
            f"v.toml:7: exactly one of {', '.join(f'[fallback.{name}]' for name in KEPT)} is needed,"
            " found none of them\n"
            "add the table of the provider that keeps the key, or remove this [[fallback]]"
        ),
    ),
    "for a temporary volume": (
        HEAD + "[encrypt.otp]\n" + EXEC,
        "v.toml:5: [[fallback]] has no meaning for a temporary volume",
    ),
    "the first once more": (
        HEAD + FIRST + EXEC + "[[fallback]]\n" + FIRST.replace("encrypt", "fallback"),
        "v.toml:10: [[fallback]] has the same secret as [encrypt.kms], from the same place: it fails when that fails",
    ),
    "another once more": (
        TWO + EXEC + "timeout = 5\n",
        "v.toml:16: [[fallback]] has the same secret as fallback 2, from the same place",
    ),
    "too many": (
        HEAD + FIRST + "".join(EXEC.replace("get-key", f"get-key-{number}") for number in range(8)),
        "v.toml: there are 8 [[fallback]] tables; at most 7 are allowed",
    ),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    config = configured(tmp_path, text)
    assert config.volumes == ()
    (problem,) = config.problems
    assert said in f"{problem.what}\n{problem.hint}"


def test_one_secret_may_be_had_from_two_places(tmp_path: Path) -> None:
    elsewhere = FIRST.replace("encrypt", "fallback") + 'endpoint = "kms.example.org"\n'
    (volume,) = configured(tmp_path, HEAD + FIRST + "[[fallback]]\n" + elsewhere).volumes
    assert len(volume.sources) == 2


def test_as_many_as_there_may_be_are_read(tmp_path: Path) -> None:
    text = "".join(EXEC.replace("get-key", f"get-key-{number}") for number in range(7))
    (volume,) = configured(tmp_path, HEAD + FIRST + text).volumes
    assert len(volume.sources) == 8

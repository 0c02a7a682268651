"""Several sources of one volume's key, on real dm-crypt: KMS, and what is asked when it is gone."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.lab.disk import Disk, blank_disk

if TYPE_CHECKING:
    from pathlib import Path

DEVICE = "/dev/disk/by-id/virtio-d1"
FALLBACK = """
[[fallback]]
after = 3
[fallback.exec]
command = "cat"
args = ["/run/fallback-key"]
"""
HELPERS = f"""
umask 077
rm -f /etc/cryptpilot/volumes/*
kms() {{ echo "{{\\"name\\": \\"$1\\"}}" > {machines.KMS_FILES}/{machines.BEHAVIOUR}; }}
fails() {{ status=0; "$@" 2>&1 || status=$?; echo "status $status"; [ $status != 0 ]; }}
slots() {{ cryptsetup luksDump {DEVICE} | grep -c '^  [0-9]*: luks2$'; }}
took() {{ local began=$EPOCHREALTIME; "$@"; echo "took $(( (${{EPOCHREALTIME/./}} - ${{began/./}}) / 1000 )) ms"; }}
head -c 64 /dev/urandom > /run/fallback-key
"""


def parts(text: str) -> dict[str, str]:
    """Return what a script printed below its headings, which are lines like `=== heading`."""
    _, *rest = f"\n{text}".split("\n=== ")
    return {part.split("\n", 1)[0]: part.partition("\n")[2].strip() for part in rest}


@pytest.fixture
def own_site(tmp_path: Path) -> machines.Site:
    return machines.make_site(tmp_path / "kms")


def run(site: machines.Site, tree: Path, work: Path, script: str) -> dict[str, str]:
    """Run a script on a machine with the KMS and a disk; return what it printed by heading."""
    disk = Disk(blank_disk(work / "d1.img", 64 << 20), "d1")
    result = machines.run_with_kms(site, tree, f"{HELPERS}\n{script}", disks=[disk], timeout=240).check()
    for name, secret in site.forbidden.items():
        assert secret not in (result.stdout + result.stderr).encode(), name
    return parts(result.stdout)


def configured(site: machines.Site, more: str) -> str:
    text = machines.volume_file(site, volume="data1", dev=DEVICE) + more
    return f"cat > /etc/cryptpilot/volumes/data1.toml << 'END OF FILE'\n{text}END OF FILE\n"


def test_the_fallback_opens_what_init_enrolled_when_kms_refuses_or_is_silent(
    own_site: machines.Site, tree: Path, tmp_path: Path
) -> None:
    told = run(
        own_site,
        tree,
        tmp_path,
        f"""
{configured(own_site, FALLBACK)}
mv /run/fallback-key /run/away
echo; echo "=== init without it"
fails cryptpilot init data1 --yes
blkid -p {DEVICE} || echo "the disk is as it was"
mv /run/away /run/fallback-key
echo "=== init"
cryptpilot init data1 --yes
slots
echo "=== check"
cryptpilot config check
echo "=== first"
requests() {{ wc -l < {machines.KMS_FILES}/requests.jsonl; }}
before=$(requests)
cryptpilot open data1
echo "asked $(( $(requests) - before ))"
cryptpilot show --json
cryptpilot close data1
kms refuse
echo "=== refused"
took cryptpilot open data1
cryptpilot show
cryptpilot close data1
echo "=== check refused"
fails cryptpilot config check
kms hang
echo "=== silent"
took cryptpilot open data1
cryptpilot close data1
echo "=== both"
kms refuse
head -c 64 /dev/urandom > /run/fallback-key
fails cryptpilot open data1
""",
    )
    assert "error: data1: fallback1 (command cat): cat failed with exit status 1" in told["init without it"]
    assert told["init without it"].endswith("status 1\nthe disk is as it was")
    assert told["init"].endswith("\n2")
    assert told["check"] == "data1: ok"
    opened, _, record = told["first"].partition("\n[")
    assert "is open by encrypt (KMS instance" in opened
    assert opened.endswith("\nasked 1")
    (volume,) = json.loads("[" + record.partition("\n]")[0] + "]")
    assert (volume["key_provider"], volume["opened_by"]) == ("kms", "encrypt")
    assert volume["fallbacks"] == [{"provider": "exec", "after": 3}]
    assert "is open by fallback1 (command cat)" in told["refused"]
    assert "kms, exec (opened by fallback1)" in told["refused"]
    assert "error: encrypt (KMS instance" in told["check refused"]
    assert "fallback1" not in told["check refused"]
    assert "is open by fallback1 (command cat)" in told["silent"]
    silence = milliseconds(told["silent"]) - milliseconds(told["refused"])  # beside all else that an opening takes
    assert milliseconds(told["silent"]) >= 3000
    assert silence < 12000  # a single try of KMS is given 15 s: it was not waited for
    assert "none of its 2 sources opens it: encrypt (KMS instance" in told["both"]
    assert "fallback1 (command cat): the secret does not open" in told["both"]


def milliseconds(text: str) -> int:
    found = re.search(r"took (\d+) ms", text)
    assert found, text
    return int(found[1])


def test_a_source_is_enrolled_later_and_each_secret_is_rotated(
    own_site: machines.Site, tree: Path, tmp_path: Path
) -> None:
    told = run(
        own_site,
        tree,
        tmp_path,
        f"""
{configured(own_site, "")}
cryptpilot init data1 --yes
{configured(own_site, FALLBACK)}
echo; echo "=== not enrolled"
fails cryptpilot config check
kms refuse
fails cryptpilot enroll data1 exec
kms ok
slots
echo "=== enroll"
cryptpilot enroll data1 fallback1
slots
echo "=== again"
cryptpilot enroll data1 exec
slots
echo "=== no such"
fails cryptpilot enroll data1 fallback2
echo "=== rotate"
{machines.ROTATE_SECRET}
cryptpilot open data1
cryptpilot rotate data1
slots
cryptpilot config check
kms refuse
echo "=== by the fallback"
cryptpilot close data1
cryptpilot open data1
cryptpilot recovery-key data1 > /run/recovery 2>&1
cryptpilot bind data1
cryptpilot close data1
kms ok
echo "=== by the recovery key"
cp /run/fallback-key /run/old
head -c 64 /dev/urandom > /run/fallback-key
{machines.ROTATE_SECRET}
{machines.ROTATE_SECRET}
fails cryptpilot enroll data1 exec
head -n 1 /run/recovery | cryptpilot enroll data1 exec --recovery-key
cryptpilot enroll data1 kms
cryptpilot config check
""",
    )
    assert "fallback1 (command cat): the secret does not open" in told["not enrolled"]
    assert "cryptpilot enroll data1 fallback1" in told["not enrolled"]
    assert "none of its 2 sources opens it: encrypt (KMS instance" in told["not enrolled"]
    assert told["not enrolled"].endswith("\n1")
    assert told["enroll"] == "data1: fallback1 (command cat) opens it\n2"
    assert told["again"] == "data1: fallback1 (command cat) opens it already\n2"
    assert 'has no source "fallback2" (did you mean fallback1?)' in told["no such"]
    assert (
        "encrypt: /dev/disk/by-id/virtio-d1 is rotated: only the current value of its secret opens it now"
        in told["rotate"]
    )
    assert told["rotate"].endswith("fallback1: has no previous value to ask for\n2\ndata1: ok")
    assert "is open by fallback1" in told["by the fallback"]
    assert "is bound to the volume" in told["by the fallback"] or "was bound to" in told["by the fallback"]
    enrolled = told["by the recovery key"]
    assert "none of its 2 sources opens it" in enrolled
    assert "data1: fallback1 (command cat) opens it\n" in enrolled
    assert re.search(r"data1: encrypt \(KMS instance .*\) opens it\n", enrolled)
    assert enrolled.endswith("data1: ok")

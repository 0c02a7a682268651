"""A boot whose KMS is gone: the root opens by a fallback, in the time that its file states."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests import machines
from tests.boot.evidence import require_no_secret
from tests.lab.tree import clone

if TYPE_CHECKING:
    from pathlib import Path

    from tests.boot.conftest import Boot
    from tests.lab.disk import Disk

AFTER = 8  # seconds
GIVE = "/usr/local/sbin/give-key"


def test_the_root_opens_by_the_third_source_when_one_is_silent_and_one_refuses(
    boot: Boot,
    boot_tree: Path,
    own_root_disk: Disk,
    scratch_disk: Disk,
    report_disk: Disk,
    recovery_key: str,
    kms: machines.Site,
    tmp_path: Path,
) -> None:
    """The first is asked and says nothing, the second is asked then and refuses, the third is asked at once."""
    tree = clone(boot_tree, tmp_path / "tree")
    give = tree / GIVE.lstrip("/")
    give.parent.mkdir(parents=True, exist_ok=True)
    give.write_text(f"#!/bin/sh\nprintf %s {recovery_key}\n")
    give.chmod(0o700)
    other = machines.volume_file(kms, secret_name="not-there")
    refused = other[other.index("[encrypt.kms]") :].replace("encrypt", "fallback")
    text = f"""{machines.volume_file(kms)}
[[fallback]]
after = {AFTER}
{refused}
[[fallback]]
after = {AFTER}
[fallback.exec]
command = "{GIVE}"
"""
    machines.configure(tree, {"root": text})
    image = machines.make_image(tree, tmp_path / "initrd.img")
    kms.behave("hang", secret=machines.SECRET_NAME)
    console = boot(image, (own_root_disk, scratch_disk, report_disk)).console
    third = f"fallback2 (command {GIVE})"
    assert "root: no answer of the source before it yet; asking fallback1 (KMS instance" in console
    assert 'root: fallback1: there is no secret "not-there"' in console
    assert f"; asking {third} too" in console
    report = machines.read_report(report_disk)
    assert report["root_source"].strip() == "/dev/mapper/root"
    events = [event for event in machines.events(report) if event["volume"] == "root" and event["stage"] == "initrd"]
    asked = {
        event["facts"]["source"]: event["boot"]
        for event in events
        if "source" in event["facts"] and "notice" in event["facts"]
    }
    (outcome,) = (event for event in events if event["step"] == "outcome")
    assert (outcome["facts"]["result"], outcome["facts"]["source"]) == ("opened", "fallback2")
    fetch = next(event["boot"] for event in events if (event["step"], event["phase"]) == ("fetch-key", "begin"))
    assert AFTER <= asked[1] - fetch < AFTER + 2
    assert asked[2] - asked[1] < AFTER, "the third was asked because the second was silent, and not at once"
    requests = [request["secret"] for request in kms.requests()]
    assert set(requests) == {machines.SECRET_NAME, "not-there"}
    assert requests.count("not-there") == 1
    require_no_secret(kms, {**report, "console": console})
    assert recovery_key not in json.dumps(report) + console

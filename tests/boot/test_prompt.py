"""A machine that is attended asks for a key on its console, while the key provider is still asked."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import TYPE_CHECKING

from tests import machines, steps
from tests.boot import agents
from tests.boot.evidence import agent_lines, require_no_secret
from tests.boot.prompt import NO_KEY, answer
from tests.lab import qemu
from tests.lab.disk import Disk, blank_disk
from tests.steps import Step, prints

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.net import Namespace

FILE = "/etc/cryptpilot/volumes/data.toml"
ANSWER = """
systemctl start --no-block cryptpilot@data.service
for _ in $(seq 300); do question=$(ls /run/systemd/ask-password/ask.* 2> /dev/null) && break; sleep 0.2; done
cat "$question"
tr -d '\\n' < /run/recovery | /lib/systemd/systemd-reply-password 1 "$(sed -n 's/^Socket=//p' "$question")"
systemctl start cryptpilot@data.service; ls /dev/mapper/data
"""
BY_HAND = [
    Step("A volume is configured ...", machines.exec_volume("data", "/dev/disk/by-id/virtio-data")),
    Step("(its key)", f"base64 -d <<< {base64.b64encode(machines.EXEC_KEY).decode()} > /run/key"),
    Step(
        "... and made, with a recovery key.",
        "cryptpilot init data --yes && cryptpilot recovery-key data > /run/recovery",
    ),
    Step(
        "Its provider has nothing to give any more.",
        f"rm /run/key; sed -i '1i auto_open = true\\ninitrd = false' {FILE}",
    ),
    Step("The machine is attended.", "printf '[boot]\\nask = true\\n' > /etc/cryptpilot/global.toml"),
    Step("A person is asked, and answers.", ANSWER, prints("Message=Recovery key or passphrase of volume data:")),
]


def test_a_key_that_is_typed_opens_the_root_while_kms_is_down(
    boot_tree: Path,
    verbose_image: machines.Image,
    own_root_disk: Disk,
    scratch_disk: Disk,
    report_disk: Disk,
    recovery_key: str,
    site: machines.Site,
    network: Namespace,
    tmp_path: Path,
) -> None:
    """Nothing listens there. Wrong keys are told of, and the question stays; so it is in the booted system."""
    data = Disk(blank_disk(tmp_path / "data.img", 64 << 20), "data")
    disks = (own_root_disk, scratch_disk, data, steps.steps_disk(tmp_path, BY_HAND, "root"), report_disk)
    machine = machines.machine(boot_tree, verbose_image, disks, network)
    typed = recovery_key.replace("-", " ").upper()
    slip = ("b" if recovery_key[0] != "b" else "c") + recovery_key[1:]
    with qemu.Guest(machine, tmp_path / "console.log") as guest:
        answer(guest, NO_KEY)
        answer(guest, slip, f"wrong key: no key slot of {own_root_disk.device} takes it\\. ")
        answer(guest, typed, r"the recovery key is mistyped: look at group 1\. ")
        result = guest.result(guest.wait(400)).check()
    report = machines.read_report(report_disk)
    steps.check(BY_HAND, report)
    assert report["root_source"].strip() == "/dev/mapper/root"
    (line,) = [line for line in agent_lines(result.console) if line.startswith("root: /dev/mapper/root opened in")]
    assert line.endswith(", by the key that was typed")
    opened = {one["volume"]: one["opened"] for one in json.loads(report["show.json"])}
    assert opened == {"root": True, "scratch": True, "later": False, "data": True}
    require_no_secret(site, {**report, "console": result.console})
    for text in (*report.values(), result.console):
        for secret in (NO_KEY, slip, recovery_key, typed):
            assert secret not in text


def test_systemds_own_agents_show_a_question_and_take_it_back() -> None:
    """Those of the machine that tests, with a /run of their own: what a boot has, without the boot."""
    agent = [sys.executable, "-m", "tests.boot.agents", "systemd-tty-ask-password-agent", "--watch", "--console=TTY"]
    alone = 'mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/ask-password && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", alone, "sh", *agent],
        cwd=machines.CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    came = json.loads(done.stdout)
    assert came["answers"] == [agents.TYPED, None]
    assert (came["standing"], came["left"]) == (2, 0)  # the question and its socket
    assert agents.TYPED not in came["seen"]
    _, _, after = came["seen"].partition("The second question")
    assert after.endswith("\r\n"), "the prompt did not go away"

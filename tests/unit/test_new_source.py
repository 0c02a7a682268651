"""docs/dev/new-source.md: a copy of the package is given what the page says, and has the new source everywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs/dev/new-source.md").read_text()
VOLUME = """\
volume = "data0"
dev = "/dev/vdb"
auto_open = true
[encrypt.fw_cfg]
name = "opt/disk"
"""


SYSFS = "/sys/firmware/qemu_fw_cfg/by_name"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a directory with the package, and in it the file and the row that the page has; it is QEMU's, too."""
    shutil.copytree(
        CHECKOUT / "cryptpilot_boot", tmp_path / "cryptpilot_boot", ignore=shutil.ignore_patterns("__pycache__")
    )
    providers = tmp_path / "cryptpilot_boot/providers"
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (name,) = re.findall(r"^`cryptpilot_boot/providers/(\w+\.py)`:$", PAGE, re.MULTILINE)
    assert SYSFS in code
    (providers / name).write_text(code.replace(SYSFS, str(tmp_path)))
    (imported, row) = re.findall(r"^\+(.*)$", PAGE, re.MULTILINE)
    table = (providers / "table.py").read_text()
    table = table.replace("\nfrom cryptpilot_boot.providers", f"\n{imported}\nfrom cryptpilot_boot.providers", 1)
    table = re.sub(r"^(PROVIDERS.*\()$", rf"\1\n{row}", table, count=1, flags=re.MULTILINE)
    (providers / "table.py").write_text(table)
    return tmp_path


def run(package: Path, *arguments: str) -> tuple[str, str]:
    """Run the command line with the package of a directory; return what it wrote to the two streams."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=package, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout, done.stderr


def configure(package: Path, text: str) -> None:
    (package / "conf/volumes").mkdir(parents=True, exist_ok=True)
    (package / "conf").chmod(0o755)
    (package / "conf/volumes/data0.toml").write_text(text)


def test_the_source_of_the_page_gives_the_secret(package: Path) -> None:
    (package / "opt/disk").mkdir(parents=True)
    (package / "opt/disk/raw").write_bytes(b"from QEMU")
    configure(package, VOLUME)
    code = """
from pathlib import Path
from cryptpilot_boot import config, keys
from cryptpilot_boot.providers import fw_cfg
(volume,) = config.load(Path("conf"), others=False).volumes
print(keys.describe(volume.encrypt)["provider"], volume.temporary, volume.needs_network)
with keys.prepare(volume.encrypt)(5) as passphrase:
    print(bytes(passphrase.reveal()).decode())
print(keys.share(volume.encrypt, fw_cfg.FwCfg("opt/disk")), keys.share(volume.encrypt, fw_cfg.FwCfg("opt/other")))
try:
    keys.prepare(fw_cfg.FwCfg("opt/other"))(5)
except keys.KeyFetchError as error:
    print(error.what, error.retryable)
"""
    out, err = run(package, "-c", code.replace("keys.KeyFetchError", "Exception"))
    assert err == ""
    assert out.splitlines() == [
        "QEMU's opt/disk False False",
        "from QEMU",
        "True False",
        "QEMU has no opt/other True",
    ]


def test_the_image_gets_what_the_source_of_the_page_needs(package: Path) -> None:
    configure(package, VOLUME)
    out, _ = run(package, "-m", "cryptpilot_boot", "-c", f"{package}/conf", "initrd", "plan")
    assert "module qemu_fw_cfg" in out.splitlines()
    configure(package, VOLUME.replace("auto_open = true", ""))
    out, _ = run(package, "-m", "cryptpilot_boot", "-c", f"{package}/conf", "initrd", "plan")
    assert "device /dev/vdb" in out.splitlines()
    assert "qemu_fw_cfg" not in out


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (VOLUME.replace("opt/disk", "disk"), 'data0.toml:5: "encrypt.fw_cfg.name" must be "opt/" and a name'),
        (VOLUME.replace("name =", "nane ="), 'data0.toml:5: unknown key "encrypt.fw_cfg.nane" (did you mean "name"?)'),
        (VOLUME.replace("fw_cfg", "fwcfg"), 'data0.toml:4: unknown table "encrypt.fwcfg" (did you mean "fw_cfg"?)'),
        (VOLUME.partition("name =")[0], 'data0.toml:4: missing key "name" in [encrypt.fw_cfg]'),
    ],
    ids=["value", "key", "table", "missing"],
)
def test_what_is_wrong_with_its_table_is_said_with_file_and_line(package: Path, wrong: str, said: str) -> None:
    configure(package, wrong)
    _, err = run(package, "-m", "cryptpilot_boot", "-c", f"{package}/conf", "show")
    assert said in err

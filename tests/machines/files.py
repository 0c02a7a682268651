"""Configuration files: of volumes, and global.toml."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from tests.machines.site import INSTANCE, SECRET_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.machines.site import Site

ROOT = "root"
"""Name of the root volume and of the disk it is on."""
EXEC_KEY = bytes(range(64))
"""A passphrase for `exec_volume`: key material, so that nobody stretches it, which takes long."""
NO_VOLUMES = f"rm -f /etc/cryptpilot/volumes/*; base64 -d <<< {base64.b64encode(EXEC_KEY).decode()} > /run/key\n"
"""The shell line that removes what the tree has configured, and puts a passphrase where `exec_volume` finds it."""


def volume_file(
    site: Site,
    *,
    volume: str = ROOT,
    dev: str = f"/dev/disk/by-id/virtio-{ROOT}",
    makefs: str = "ext4",
    secret_name: str = SECRET_NAME,
) -> str:
    """Write the configuration of a KMS volume as the guide prints it."""
    client_key = (site.directory / "client_key.json").read_text()
    password = (site.directory / "client_key_password").read_text()
    return f'''\
volume = "{volume}"
dev = "{dev}"
auto_open = true
makefs = "{makefs}"

[encrypt.kms]
kms_instance_id = "{INSTANCE}"
secret_name = "{secret_name}"
client_key = \'\'\'
{client_key}
\'\'\'
client_key_password = "{password}"
kms_cert_pem = """
{(site.directory / "ca.pem").read_text()}"""
'''


def role_file(*, volume: str = ROOT, dev: str = f"/dev/disk/by-id/virtio-{ROOT}") -> str:
    """Write the configuration of a KMS volume on an instance with a RAM role: nothing more is needed."""
    return f"""\
volume = "{volume}"
dev = "{dev}"
auto_open = true
makefs = "ext4"

[encrypt.kms]
auth_mode = "ecs_ram_role"
secret_name = "{SECRET_NAME}"
"""


def exec_file(volume: str, dev: str, *, key: str = "/run/key", makefs: str = "ext4", integrity: bool = False) -> str:
    """Write the configuration of a volume whose passphrase is what `cat` says of a file: the quickest."""
    return f"""\
volume = "{volume}"
dev = "{dev}"
makefs = "{makefs}"
integrity = {str(integrity).lower()}

[encrypt.exec]
command = "cat"
args = ["{key}"]
"""


def exec_volume(volume: str, dev: str, *, integrity: bool = False) -> str:
    """Return the shell lines that configure such a volume."""
    text = exec_file(volume, dev, integrity=integrity)
    return f"umask 077\ncat > /etc/cryptpilot/volumes/{volume}.toml << 'END OF FILE'\n{text}END OF FILE\n"


def scratch_file(*, integrity: bool = False) -> str:
    """Write the configuration of a temporary volume, which is opened at boot."""
    return f"""\
volume = "scratch"
dev = "/dev/disk/by-id/virtio-scratch"
auto_open = true
makefs = "ext4"
integrity = {str(integrity).lower()}
[encrypt.otp]
"""


def settings(*, verbose: bool = False, timeout: int = 60, emergency_shell: bool = False, ask: bool = False) -> str:
    """Write a global.toml."""
    lines = {"verbose": verbose, "timeout": timeout, "emergency_shell": emergency_shell, "ask": ask}
    return "".join(["[boot]\n", *(f"{key} = {str(value).lower()}\n" for key, value in lines.items())])


def configure(tree: Path, volumes: Mapping[str, str], global_file: str = "") -> None:
    """Write the configuration into a tree; `volumes` are file contents by volume name."""
    directory = tree / "etc/cryptpilot"
    files = {directory / "volumes" / f"{name}.toml": text for name, text in volumes.items()}
    if global_file:
        files[directory / "global.toml"] = global_file
    for path, text in files.items():
        path.write_text(text)
        path.chmod(0o600)

"""What stands in configurations of other programs, and is no slip: a sentence of its own for each. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.config.document import Document, line_of
from cryptpilot_boot.errors import ConfigError
from cryptpilot_boot.providers import table

if TYPE_CHECKING:
    from collections.abc import Mapping

# Key providers of the existing Rust implementation that there are not here: what each is, and what can be done.
_PROGRAM = (
    "have a program write the passphrase to its standard output, byte for byte, and name it in [encrypt.exec]; in an"
    " initrd it has to be a program that the image can carry"
)
_PROVIDERS = {
    "tpm2": ("a TPM 2.0", f"keep the secret in KMS ([encrypt.kms]); or {_PROGRAM}"),
}

FDE_FILE = "fde.toml"
FDE = (
    "it configures the full-disk encryption of cryptpilot-fde; here a root file system is on a volume like any other:"
    " a file in volumes/ with auto_open = true"
)


def require_known_provider(document: Document, section: str, found: Mapping[str, object]) -> None:
    """Raise ConfigError for a key provider that another program has, and this one has not.

    found: what stands in a section.
    """
    for name, (what, todo) in _PROVIDERS.items():
        if name in found and name not in table.names():
            where = f"{document.path}{line_of(document.text, section, name)}"
            raise ConfigError(f"{where}: [{section}.{name}] is {what}: there is no such key provider here", todo)

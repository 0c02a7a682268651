"""Empty modules in place of packages that the SDKs import and that are not needed here.

The frozen agent has none of these packages: see buildlib/agent.spec.
"""

from __future__ import annotations

import contextlib
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Empty(types.ModuleType):
    """A module that has every name; none has a meaning."""

    __version__ = "3.0.0"  # requests checks the version of charset_normalizer

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []  # a package: modules in it can be imported

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def stand_in(*names: str) -> None:
    """Replace modules by empty ones, before SDK modules import them at the top and never use them."""
    for name in names:
        sys.modules.setdefault(name, _Empty(name))


# Signatures with RSA, by a package with an OpenSSL of its own. Here, system/libcrypto.py signs with client keys, and
# signatures with a role's credentials are HMACs.
_UNUSED_SIGNATURES = (
    "cryptography",
    "cryptography.hazmat",
    "cryptography.hazmat.backends",
    "cryptography.hazmat.primitives",
    "cryptography.hazmat.primitives.asymmetric",
    "cryptography.hazmat.primitives.serialization",
)


@contextlib.contextmanager
def without_signatures() -> Iterator[None]:
    """Replace the package that signs for the SDKs by empty modules in a `with` block.

    Only there, since other code of this process may use it.
    """
    others = {name: sys.modules.get(name) for name in _UNUSED_SIGNATURES}
    sys.modules.update({name: _Empty(name) for name in _UNUSED_SIGNATURES})
    try:
        yield
    finally:
        for name, module in others.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module

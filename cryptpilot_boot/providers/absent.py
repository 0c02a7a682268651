"""Empty modules in place of packages that the SDKs, or what they stand on, import and that nothing here needs.

The frozen agent carries none of them: see buildlib/agent.spec.
"""

from __future__ import annotations

import contextlib
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Empty(types.ModuleType):
    """A module in which every name is there and means nothing."""

    __version__ = "3.0.0"  # requests wants to know of charset_normalizer

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []  # it has modules in it

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def stand_in(*names: str) -> None:
    """Have empty modules imported in place of these, which are imported at the top of SDK modules and never used."""
    for name in names:
        sys.modules.setdefault(name, _Empty(name))


# Signatures with RSA, by a package that has an OpenSSL of its own. Those with a client key are system/libcrypto.py's,
# those with a role's credentials are HMACs.
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
    """Have empty modules imported meanwhile in place of the package that the SDKs would sign with.

    Not for longer: it is one that others in this process may use.
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

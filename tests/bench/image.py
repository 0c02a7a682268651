"""What the agent adds to an initrd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import machines
from tests.bench.table import MIB, row, title

if TYPE_CHECKING:
    from tests.bench.workshop import Workshop


def measure(shop: Workshop) -> None:
    """Print what the agent adds to an image, compressed as dracut does by default."""
    network = machines.make_image(
        shop.tree, shop.directory("image") / "network.img", "--omit", "cryptpilot", "--add", "network"
    )
    size, bare, with_network = (one.path.stat().st_size for one in (shop.image, shop.bare_image, network))
    title("Generic initrd of Debian 12, compressed as dracut does by default")
    row("without cryptpilot", f"{bare / MIB:.2f} MiB")
    row("without cryptpilot, with dracut's network module", f"{with_network / MIB:.2f} MiB")
    row("with cryptpilot and a KMS volume", f"{size / MIB:.2f} MiB")
    added = size - with_network
    row("added by cryptpilot", f"{added / MIB:.2f} MiB ({added} bytes), {size / with_network:.2f} times")
    row("aim", "at most 8 MiB")

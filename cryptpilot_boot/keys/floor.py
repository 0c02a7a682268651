"""An initrd's clock is never before the making of its image.

The clock belongs to the host, and one that is set back makes a certificate valid again that ran out. When the image was
made is written in it, and measured with it. So whatever asks for a key in an initrd, over TLS or by a program that may
use it, has the clock looked at first: `keys.prepare` sees to that for every provider.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cryptpilot_boot import log
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.system import clock
from cryptpilot_boot.system.init import in_initrd

if TYPE_CHECKING:
    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.providers.provider import Ask

_raising = threading.Lock()  # volumes ask at the same time, and one raises the clock for all


def after_the_image(ask: Ask) -> Ask:
    """Return what asks as `ask` does, each time with a clock that is not before the image."""

    def ask_then(timeout: float) -> Passphrase:
        hold()
        return ask(timeout)

    return ask_then


def hold() -> None:
    """In an initrd, raise a clock that is before the making of the image to that time; leave any other as it is.

    Raises KeyFetchError where it cannot be set.
    """
    if not in_initrd():
        return
    with _raising:
        made, now = clock.image_made(), clock.now()
        if made is None or now >= made:
            return
        was, image = clock.text(now), clock.text(made)
        try:
            clock.set_to(made)
        except OSError as error:
            raise KeyFetchError(
                f"this machine's clock says {was}, before this image was made ({image}), and cannot be set:"
                f" {error.strerror}",
                "set the clock of this machine in its firmware",
            ) from None
    notice = f"this machine's clock said {was}, before this image was made, and was set to that time, {image}"
    log.emit("clock", facts={"was": was, "set_to": image, "by": "this image", "notice": notice})

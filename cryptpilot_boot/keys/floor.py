"""The clock of an initrd is never earlier than its image.

The host sets the clock, and an earlier time makes an expired certificate valid again. The image holds the time when it
was made, and that is measured. Before each question for a key in an initrd, `keys.prepare` has the clock compared with
it. That includes programs, which may use TLS too.
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

_raising = threading.Lock()  # volumes ask at the same time, and one of them sets the clock for all


def after_the_image(ask: Ask) -> Ask:
    """Return what asks as `ask` does, each time with a clock that is not earlier than the image."""

    def ask_then(timeout: float) -> Passphrase:
        hold()
        return ask(timeout)

    return ask_then


def hold() -> None:
    """In an initrd, set a clock that is earlier than the image to the time of the image.

    Raises KeyFetchError if it cannot be set.
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

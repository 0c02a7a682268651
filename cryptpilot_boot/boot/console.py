"""What a boot says on the console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys

if TYPE_CHECKING:
    from cryptpilot_boot.boot.stage import Outcome
    from cryptpilot_boot.log import Event, Sink

Say = Callable[[str], None]

_QUIET_FOR = 10.0  # seconds a wait may last before a console that is not verbose hears of it
_AGAIN_AFTER = 5.0


def verbose(say: Say) -> Sink:
    """Return a sink that tells every step when it ends, with its time, and every wait when it begins."""
    last_wait: dict[str, tuple[str, float]] = {}

    def tell(event: Event) -> None:
        if event.phase == "begin":
            return
        what = f"{event.volume}: {event.step}" if event.volume else event.step
        facts = dict(event.facts)
        if event.phase == "wait":
            waiting_for = str(facts.get("waiting_for", ""))
            before, when = last_wait.get(event.volume, ("", 0.0))
            if waiting_for == before and event.boot - when < _AGAIN_AFTER:
                return
            last_wait[event.volume] = (waiting_for, event.boot)
            say(f"{what}: waiting: {waiting_for}")
            return
        took = f" {event.seconds:.3f} s" if event.seconds is not None else ""
        failed = " failed" if event.phase == "fail" else ""
        detail = ", ".join(f"{key} {value}" for key, value in facts.items())
        say(f"{what}:{failed}{took}{f' ({detail})' if detail else ''}")

    return tell


def brief(say: Say) -> Sink:
    """Return a sink that is silent but for waits that drag on."""
    begun: dict[str, float] = {}

    def tell(event: Event) -> None:
        if event.phase != "wait":
            return
        since = begun.setdefault(event.volume, event.boot)
        if event.boot - since >= _QUIET_FOR:
            begun[event.volume] = event.boot
            say(f"{event.volume}: still waiting: {event.facts.get('waiting_for', '')}")

    return tell


def result(outcome: Outcome, *, needed: bool) -> list[str]:
    """Return the lines that tell how a volume fared: one if all is well, else what failed and what to do."""
    volume = outcome.volume
    if outcome.error is None:
        how = "was open already" if outcome.was_open else f"opened in {outcome.seconds:.2f} s"
        return [f"{volume.volume}: {volume.mapper_path} {how}"]
    facts = {
        "device": volume.dev,
        **keys.describe(volume.encrypt),
        "failed": outcome.error.what,
        "to do": outcome.error.hint,
        "now": _now(outcome.stage, needed=needed),
    }
    lines = [f'volume "{volume.volume}" could not be opened']
    return lines + [f"  {name + ':':<10}{value}" for name, value in facts.items() if value]


def _now(stage: str, *, needed: bool) -> str:
    if needed:
        return "the kernel command line names this volume, so the boot stops here; the disk was not changed"
    if stage == "initrd":
        return "the boot goes on, unless something else waits for it; cryptpilot.service tries again"
    return "try again: systemctl restart cryptpilot.service"

"""What a boot says on the console."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys, log, steps
from cryptpilot_boot.names import volume_unit

if TYPE_CHECKING:
    from cryptpilot_boot.boot.outcome import Outcome
    from cryptpilot_boot.log import Event, Sink

Say = Callable[[str], None]

_AGAIN_AFTER = 5.0  # seconds until a continuing wait is reported again


def verbose(say: Say) -> Sink:
    """Return a sink that tells every step when it ends, with its time, and what is waited for."""
    tell_wait = brief(say)

    def tell(event: Event) -> None:
        tell_wait(event)
        # the result of a volume is reported anyway
        if event.phase in ("begin", "wait", "busy") or event.step == "outcome" or "notice" in event.facts:
            return
        what = f"{event.volume}: {event.step}" if event.volume else event.step
        took = f" {event.seconds:.3f} s" if event.seconds is not None else ""
        failed = " failed" if event.phase == "fail" else ""
        detail = ", ".join(f"{key} {value}" for key, value in event.facts.items())
        say(f"{what}:{failed}{took}{f' ({detail})' if detail else ''}")

    return tell


def brief(say: Say) -> Sink:
    """Return a sink that reports waits, long steps, and any event's "notice", which is for a person.

    A wait is reported at once, at each change, and every few seconds. It is not reported while a person is asked for a
    key, because it would hide the question, nor for a volume that has its result. Nor does it then report that another
    source is asked.
    """
    last: dict[str, tuple[str, float]] = {}
    prompts: set[str] = set()
    settled: set[str] = set()

    def tell(event: Event) -> None:
        if event.step == steps.PROMPT and event.phase == "begin":
            prompts.add(event.volume)
        elif event.step == steps.PROMPT and event.phase in ("end", "fail"):
            prompts.discard(event.volume)
        elif event.step == "outcome":
            settled.add(event.volume)
        if "notice" in event.facts and not (prompts and event.step == log.FETCH_KEY):
            say(str(event.facts["notice"]))
        if event.phase in ("wait", "busy") and (prompts or event.volume in settled):
            return
        if event.phase == "busy":
            say(f"{event.volume}: still {event.facts.get('doing', event.step)}")
        if event.phase != "wait":
            return
        waiting_for = str(event.facts.get("waiting_for", ""))
        before, when = last.get(event.volume, ("", 0.0))
        if waiting_for != before or event.boot - when >= _AGAIN_AFTER:
            last[event.volume] = (waiting_for, event.boot)
            say(f"{event.volume}: waiting: {waiting_for}")

    return tell


def result(outcome: Outcome, *, shell: bool = False) -> list[str]:
    """Return the lines that tell how a volume fared: one if all is well, else what failed and what to do.

    shell: whether there is one for what can be done when the boot stops.
    """
    volume = outcome.volume
    if outcome.error is None:
        how = "was open already" if outcome.was_open else f"opened in {outcome.seconds:.2f} s"
        by = f" by {outcome.opened_by}" if outcome.opened_by else ""
        by = ", by the key that was typed" if outcome.typed else by
        lines = [f"{volume.volume}: {volume.mapper_path} {how}{by}"]
        if outcome.rotation_pending:
            todo = f"once the system is up: cryptpilot rotate {volume.volume}"
            lines.append(f"{volume.volume}: warning: the previous value of its secret opened it; {todo}")
        if outcome.ending:
            lines.append(f"{volume.volume}: {outcome.ending}")
        return lines
    if outcome.late:
        return [f"{volume.volume}: {outcome.error.what}; the pivot does not need it: left to cryptpilot.service"]
    facts = {
        "device": volume.dev,
        **keys.describe(volume.encrypt),
        "failed": outcome.error.what,
        "to do": outcome.error.hint,
        "now": _now(outcome),
        **_by_hand(outcome, shell=shell),
    }
    lines = [f'volume "{volume.volume}" could not be opened']
    return lines + [f"  {name + ':':<10}{value}" for name, value in facts.items() if value]


def _by_hand(outcome: Outcome, *, shell: bool) -> dict[str, str]:
    name = outcome.volume.volume
    if outcome.needed and shell:
        # only its disk tells whether it has one, and this code does not read the disk again
        recovery = f"cryptpilot open {name} --recovery-key; exit (if it has one)"
        return {"again": f"cryptpilot open {name}; exit", "or": recovery}
    if outcome.needed:
        return {"by hand": "rd.shell on the kernel command line gives a shell; so does an image with emergency_shell"}
    if outcome.volume.required and outcome.stage == "system":
        return {"again": f"{_restart(name)} && systemctl default"}
    return {}


def _now(outcome: Outcome) -> str:
    if outcome.needed:
        return "the boot needs this volume and stops here; the disk was not changed"
    if outcome.stage == "initrd":
        return "the boot goes on, unless something else waits for it; cryptpilot.service tries again"
    if outcome.volume.required:
        return "required = true: the boot stops, in emergency mode, if fstab mounts it"
    return f"try again: {_restart(outcome.volume.volume)}"


def _restart(name: str) -> str:
    # the name may hold a backslash
    return f"systemctl restart {shlex.quote(volume_unit(name))}"

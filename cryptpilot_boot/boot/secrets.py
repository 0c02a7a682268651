"""The secrets of a stage's volumes, and the prompts by which a user may type a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.boot.prompt import Prompt
from cryptpilot_boot.keys.asking import Terms
from cryptpilot_boot.keys.secret import Sources

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptpilot_boot import keys
    from cryptpilot_boot.boot.needs import BootNeeds
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.system.wait import Deadline


class Secrets:
    """The secrets of a stage's volumes. A prompt stands for each volume whose key a user may be asked for."""

    def __init__(self, needs: BootNeeds, deadline: Deadline) -> None:
        self._needs = needs
        self._deadline = deadline
        self._sources: dict[str, Sources] = {}
        self._prompts: dict[str, Prompt] = {}

    @property
    def have_prompts(self) -> bool:
        """Whether `look` has anything to do."""
        return bool(self._prompts)

    def of(self, one: Volume, answers: keys.Answers) -> Sources:
        """Make the secret of a volume."""
        self._sources[one.volume] = secret = Sources(one, Terms(answers, self._deadline))
        if self._needs.plan.ask and not one.temporary:
            self._prompts[one.volume] = Prompt(one, secret.race)
            self._set_limit(one)
        return secret

    def look(self, pending: Iterable[Volume]) -> None:
        """Show the prompts that are due. Withdraw at the deadline those that the boot does not wait for.

        pending: the volumes without a result. Call it again and again.
        """
        for one in pending:
            prompt = self._prompts.get(one.volume)
            if prompt is None:
                continue
            self._set_limit(one)  # that the pivot needs it may become known late
            if self._deadline.over and not self._needs.stop_boot(one):
                prompt.dismiss()
            # what can be deferred is asked for by the next stage
            elif prompt.is_due() and not self._needs.can_be_deferred(one):
                prompt.begin()

    def wait_for_user(self, one: Volume) -> bool:
        """Return whether the boot waits without a limit for a user who is or will be asked."""
        prompt = self._prompts.get(one.volume)
        return prompt is not None and prompt.may_be_answered and self._needs.stop_boot(one)

    def stop(self, one: Volume) -> None:
        """Ask for a volume no longer. Otherwise its task holds its lock as long as the stage waits for others."""
        self._sources[one.volume].stop()

    def dismiss(self, one: Volume) -> None:
        """Withdraw the prompt of a volume."""
        if one.volume in self._prompts:
            self._prompts[one.volume].dismiss()

    def dismiss_all(self) -> None:
        """Withdraw all prompts, and wait until they have disappeared."""
        for prompt in self._prompts.values():
            prompt.dismiss()
        for prompt in self._prompts.values():
            prompt.await_end()

    def _set_limit(self, one: Volume) -> None:
        """If the boot waits for a user, have the sources asked as long."""
        if self.wait_for_user(one):
            self._sources[one.volume].ask_without_limit()

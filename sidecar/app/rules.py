"""Policy and signers in force: read together, put in force together, or not at all."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from sidecar.audit.record import Record
from sidecar.breakglass.signers import NO_SIGNERS, Signers, load_signers
from sidecar.clock import Clock
from sidecar.errors import ConfigurationError, ProblemsError
from sidecar.metrics import SidecarMetrics
from sidecar.policy.loader import load_policy
from sidecar.policy.model import Policy

log = logging.getLogger(__name__)


class Rules:
    """Reads policy file and signers file; ``policy`` and ``signers`` are what was last read without a mistake."""

    def __init__(self, policy: Path, signers: Path | None, clock: Clock, metrics: SidecarMetrics) -> None:
        self._policy_path = policy
        self._signers_path = signers
        self._clock = clock
        self._metrics = metrics
        self.policy, self.signers = read_rules(policy, signers)
        self._note_taken()
        metrics.policy_info.collect(lambda: [((self.policy.sha256,), 1.0)])

    async def reload(self, record: Record) -> bool:
        """Reads both files anew, in a thread, since a large policy takes long; whether anything changed.

        Raises :class:`ProblemsError` with every mistake in both of them; what was in force then stays so,
        both of it, and the attempt is recorded.
        """
        try:
            policy, signers = await asyncio.to_thread(read_rules, self._policy_path, self._signers_path)
        except ProblemsError as exc:
            self._metrics.policy_reloads.labels("failed").inc()
            record(
                "policy",
                {"result": "failed", "policy": self.policy.sha256, "problems": list(exc.problems[:20])},
            )
            for problem in exc.problems:
                log.error("policy or signers not taken over", extra={"problem": problem})
            raise
        changed = policy.sha256 != self.policy.sha256 or signers != self.signers
        before, self.policy, self.signers = self.policy.sha256, policy, signers
        self._metrics.policy_reloads.labels("ok").inc()
        self._note_taken()
        record("policy", {"result": "ok", "policy": policy.sha256, "before": before, "changed": changed})
        log.info("policy and signers taken over", extra={"policy": policy.sha256, "changed": changed})
        return changed

    def _note_taken(self) -> None:
        self.loaded_at = self._clock.now()
        self._metrics.policy_last_reload.labels().set(self._clock.wall_s())


def read_rules(policy: Path, signers: Path | None) -> tuple[Policy, Signers]:
    """Both files' contents. Raises :class:`ProblemsError` with the mistakes of both."""
    problems: list[str] = []
    read: list[Policy] = []
    found = NO_SIGNERS
    try:
        read.append(load_policy(policy))
    except ProblemsError as exc:
        problems += exc.problems
    try:
        if signers is not None:
            found = load_signers(signers)
    except ProblemsError as exc:
        problems += exc.problems
    except ConfigurationError as exc:
        problems.append(str(exc))
    if problems:
        raise ProblemsError(problems)
    return read[0], found

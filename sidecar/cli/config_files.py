"""The files that settings name: does each hold what it should? Reads them and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from sidecar.breakglass.signers import load_signers
from sidecar.clock import SYSTEM_CLOCK, Clock, rfc3339
from sidecar.errors import ConfigurationError, ProblemsError, SidecarError
from sidecar.policy.loader import load_policy
from sidecar.settings import Settings
from sidecar.sources import load_source
from sidecar.tls.verify import verify_peer


def check_files(
    environ: Mapping[str, str], settings: Settings | None, clock: Clock = SYSTEM_CLOCK
) -> list[str]:
    """What is wrong with the files, one problem each.

    Policy and signers are judged even where ``settings`` is None because other variables are wrong, so that
    one run shows every mistake. The SVID's files are judged together, as the running sidecar would read them.
    """
    problems: list[str] = []
    if policy := environ.get("SIDECAR_POLICY"):
        problems += _attempt("SIDECAR_POLICY", lambda: load_policy(Path(policy)))
    if signers := environ.get("SIDECAR_BREAK_GLASS_SIGNERS"):
        problems += _attempt("SIDECAR_BREAK_GLASS_SIGNERS", lambda: load_signers(Path(signers)))
    if settings is not None and settings.identity == "files":
        problems += _attempt("SIDECAR_SVID_FILE", lambda: asyncio.run(_check_identity(settings, clock)))
    return problems


async def _check_identity(settings: Settings, clock: Clock) -> None:
    """Reads the SVID once and proves it against its own bundle, as any peer would."""
    source = load_source(settings.identity, settings, clock)
    try:
        snapshot = await source.start()
    finally:
        await source.close()
    if snapshot.svid.not_after <= clock.now():
        raise ConfigurationError(f"the SVID ended at {rfc3339(snapshot.svid.not_after)}; renew it")
    verify_peer(snapshot.svid.chain, snapshot.bundles, clock.now())


def _attempt(name: str, load: Callable[[], object]) -> list[str]:
    try:
        load()
    except ProblemsError as exc:
        return list(exc.problems)
    except SidecarError as exc:
        return [f"{name}: {exc}"]
    except OSError as exc:
        return [f"{name}: {str(exc.filename)!r} cannot be read: {exc.strerror}"]
    return []

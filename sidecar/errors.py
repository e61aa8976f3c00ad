"""The exception tree. Each class says whose fault it is and whether trying again can help.

::

    SidecarError
    ├── ConfigurationError      ours: the operator must change something; never retried; exit 2
    │   ├── SettingsError       one or more environment variables
    │   └── PolicyError         the policy file
    ├── VerificationError       theirs: what was presented does not prove what it claims; never retried; exit 3
    │   ├── IdentityError       a SPIFFE ID, SVID, bundle or chain
    │   └── OrderRefused        a grant, revocation or review
    ├── StateError              ours: a file under the state directory is damaged, foreign or held by another process
    ├── UnavailableError        the surroundings: a socket, disk or peer; a later try may succeed
    └── AuditUnavailable        the log cannot be written; calls are refused until it can be

Messages are one line, lower case, without a full stop: what was wrong, where, and what to do. Input is shown with
``!r``; secrets never.
"""

from __future__ import annotations

from collections.abc import Sequence


class SidecarError(Exception):
    """Root of every error this package raises on purpose."""

    exit_code = 1


class ConfigurationError(SidecarError):
    """The operator must change something before this can work."""

    exit_code = 2


class ProblemsError(ConfigurationError):
    """Several problems found in one run, so that they can be mended in one go. ``problems`` is never empty."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class SettingsError(ProblemsError):
    """Environment variables that cannot be accepted, one problem each."""


class PolicyError(ProblemsError):
    """A policy file that cannot be accepted; problems read ``FILE:LINE:COLUMN: message``."""


class VerificationError(SidecarError):
    """What was presented does not prove what it claims."""

    exit_code = 3


class IdentityError(VerificationError):
    """A SPIFFE ID, certificate, chain or bundle is not acceptable; ``rule`` names the check that failed."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class OrderRefused(VerificationError):
    """A grant, revocation or review is refused; ``code`` is stable and goes into metric and record."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StateError(SidecarError):
    """A file under the state directory is damaged, foreign, or held by another process."""


class UnavailableError(SidecarError):
    """Something around us does not answer; a later try may succeed."""


class AuditUnavailable(SidecarError):
    """The audit log cannot be written."""

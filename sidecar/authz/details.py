"""What a refused caller is told: one sentence for each reason of the decision. Pure.

It says what is wrong and whom to ask, and nothing of the policy: no scope, no rule, no other identity.
"""

from __future__ import annotations

from typing import Final

from sidecar.authz.reasons import Reason
from sidecar.policy.model import Service

_SENTENCES: Final = {
    Reason.SVID_EXPIRED: "the certificate of this workload has ended",
    Reason.UNKNOWN_IDENTITY: "this workload is not registered here",
    Reason.IDENTITY_EXPIRED: "the registration of this workload has ended",
    Reason.SCOPE: "this workload may not make this call",
    Reason.RULE: "this call is denied",
    Reason.PURPOSE: "this call has to declare one of the purposes of this workload in call-purpose",
    Reason.TASK_REQUIRED: "an agent's call needs a task token, and none is accepted here yet",
    Reason.TASK_INVALID: "a task token came along, and none can be verified here yet",
    Reason.RATE: "this workload has made more calls than it may",
    Reason.INTERNAL: "the sidecar could not decide",
}


def build_details(service: Service | None) -> dict[Reason, str]:
    """The sentence for each reason that the decision gives, with whom to ask if the policy says so."""
    asks = ""
    if service is not None:
        asks = f"; ask {service.contact}" + (f", see {service.docs}" if service.docs else "")
    return {reason: sentence + asks for reason, sentence in _SENTENCES.items()}

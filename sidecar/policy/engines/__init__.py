"""What answers "does policy permit this call?", reached by name and imported only when chosen."""

from __future__ import annotations

import importlib
from typing import Final, Protocol, cast

from sidecar.errors import PolicyError
from sidecar.identity.route import Segments
from sidecar.policy.judgement import Judgement
from sidecar.policy.model import Identity, Policy

ENGINES: Final = {"builtin": "sidecar.policy.engines.builtin:BuiltinEngine"}


class Engine(Protocol):
    """One policy, made ready for questions. The answer to one question never changes."""

    def judge(self, identity: Identity, method: str, segments: Segments) -> Judgement:
        """What the policy says about this registered identity's call."""
        ...


def build_engine(policy: Policy) -> Engine:
    """The engine that ``policy`` names, ready for it. Raises :class:`PolicyError` for an unknown name."""
    place = ENGINES.get(policy.engine)
    if place is None:
        raise PolicyError([f"there is no policy engine {policy.engine!r}; known are {', '.join(ENGINES)}"])
    module, _, attribute = place.partition(":")
    return cast(Engine, getattr(importlib.import_module(module), attribute)(policy))

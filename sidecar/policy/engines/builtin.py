"""The built-in engine: the policy file's own scopes and deny rules, compiled. Pure.

Each set of scopes that some identity has becomes a tree of its own, made when it is first asked for. So a
question costs the same among ten identities and ten thousand, and a reload compiles nothing that nobody uses.

Which rule decides is the same in every run: a deny rule before every permit, the first in the file if several
match; then the most specific pattern (from the left, a literal before ``*`` before ``**``), and among equal
ones the scope that the identity names first, then the rule that its scope lists first.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.identity.route import Segments
from sidecar.policy.engines.trie import Hit, Rank, Trie
from sidecar.policy.judgement import Judgement
from sidecar.policy.model import NEVER_PERMITTED, Denial, Identity, Policy, Rule, Scope


@dataclass(frozen=True, slots=True)
class _Permit:
    """One rule of one scope; ``name`` says where it stands."""

    name: str
    scope: Scope
    rule: Rule


class BuiltinEngine:
    """``policy``, ready for questions."""

    __slots__ = ("_denials_of", "_denied", "_denied_to", "_permits", "_scopes", "_sealed")

    def __init__(self, policy: Policy) -> None:
        self._scopes = policy.scopes
        self._permits: dict[tuple[str, ...], Trie[_Permit]] = {}
        self._denied: Trie[None] = Trie()
        self._denials_of: dict[str, list[tuple[int, Denial]]] = {}
        self._denied_to: dict[str, Trie[None]] = {}
        self._sealed: Trie[None] = Trie()
        for order, denial in enumerate(policy.denials):
            if denial.identities is None:
                self._denied.add(denial.rule, order, None)
            for id_text in denial.identities or ():
                self._denials_of.setdefault(id_text, []).append((order, denial))
        for scope in policy.scopes.values():
            for rule in scope.rules if scope.never_override else ():
                self._sealed.add(rule, 0, None)

    def judge(self, identity: Identity, method: str, segments: Segments) -> Judgement:
        """What the policy says about this registered identity's call."""
        if method in NEVER_PERMITTED:
            return Judgement("scope", is_final=True)
        denied = self._denied.find(method, segments)
        if identity.id_text in self._denials_of:
            denied += self._find_own_denials(identity.id_text, method, segments)
        if denied:
            first = min(denied, key=_by_order)
            return Judgement("rule", f"deny[{first.order}]", first.pattern.text, is_final=True)
        is_sealed = bool(self._sealed.find(method, segments))
        permitted = self._permits_of(identity).find(method, segments)
        if not permitted:
            return Judgement("scope", is_final=is_sealed)
        best = permitted[0] if len(permitted) == 1 else min(permitted, key=_by_rank)
        return Judgement(
            "permit",
            best.value.name,
            best.pattern.text,
            best.value.scope.name,
            is_final=is_sealed,
            streaming=best.value.rule.streaming,
            # Of any matching scope: a narrower rule does not make the record less needed.
            audit_strict=any(hit.value.scope.audit_strict for hit in permitted),
        )

    def _permits_of(self, identity: Identity) -> Trie[_Permit]:
        trie = self._permits.get(identity.scopes)
        if trie is None:
            trie = self._permits[identity.scopes] = Trie()
            order = 0
            for name in identity.scopes:
                scope = self._scopes[name]
                for place, rule in enumerate(scope.rules):
                    trie.add(rule, order, _Permit(f"{name}[{place}]", scope, rule))
                    order += 1
        return trie

    def _find_own_denials(self, id_text: str, method: str, segments: Segments) -> list[Hit[None]]:
        trie = self._denied_to.get(id_text)
        if trie is None:
            trie = self._denied_to[id_text] = Trie()
            for order, denial in self._denials_of[id_text]:
                trie.add(denial.rule, order, None)
        return trie.find(method, segments)


def _by_order(hit: Hit[None]) -> tuple[int, Rank]:
    return (hit.order, hit.rank)


def _by_rank(hit: Hit[_Permit]) -> tuple[Rank, int]:
    return (hit.rank, hit.order)

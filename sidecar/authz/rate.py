"""Rates of identities: one token bucket each, its burst the rate's number. Pure: time is handed in."""

from __future__ import annotations

import math

from sidecar.policy.model import Rate


class _Bucket:
    """``tokens`` that were left at ``at_s`` (monotonic), of the last rate it was asked under."""

    __slots__ = ("at_s", "rate", "tokens")

    def __init__(self, rate: Rate, now_s: float) -> None:
        self.rate = rate
        self.tokens = float(rate.calls)
        self.at_s = now_s

    def refill(self, rate: Rate, now_s: float) -> None:
        """What has come in since; a new rate counts from now and never adds tokens by itself."""
        old = self.rate
        elapsed_s = now_s - self.at_s
        if elapsed_s > 0:
            self.tokens = min(old.calls, self.tokens + elapsed_s * old.calls / old.period_s)
            self.at_s = now_s
        if old is not rate:
            self.rate = rate
            self.tokens = min(self.tokens, rate.calls)


class Buckets:
    """The buckets of all identities that have called, by id.

    A full bucket and none are the same, so full ones may be dropped at any time; one that is not full is
    never dropped, for that would be a gift. Their number is bounded by that of the registered identities with
    a rate.
    """

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def take(self, id_text: str, rate: Rate, now_s: float) -> int | None:
        """Charges one call. None if there was room, else the whole seconds (1 at least) until there is."""
        bucket = self._buckets.get(id_text)
        if bucket is None:
            bucket = self._buckets[id_text] = _Bucket(rate, now_s)
        else:
            bucket.refill(rate, now_s)
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return None
        return _wait_s(bucket)

    def look(self, id_text: str, rate: Rate, now_s: float) -> int | None:
        """What :meth:`take` would give, charging nothing."""
        bucket = self._buckets.get(id_text)
        if bucket is None:
            return None
        bucket.refill(rate, now_s)
        return None if bucket.tokens >= 1 else _wait_s(bucket)

    def drop_full(self, now_s: float) -> None:
        """Forgets the buckets that are full by now."""
        for id_text, bucket in list(self._buckets.items()):
            bucket.refill(bucket.rate, now_s)
            if bucket.tokens >= bucket.rate.calls:
                del self._buckets[id_text]

    def __len__(self) -> int:
        return len(self._buckets)


def _wait_s(bucket: _Bucket) -> int:
    return max(1, math.ceil((1 - bucket.tokens) * bucket.rate.period_s / bucket.rate.calls))

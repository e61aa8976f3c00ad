"""Signed, time-boxed grants: bytes, signatures, verification, durable store."""

"""Mutual TLS: the pure verdict on a peer, contexts from snapshots, the transport over pyOpenSSL."""

"""A small service without any authentication of its own, for a sidecar to stand in front of."""

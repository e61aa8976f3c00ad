"""The embedded issuer: a small authority for one machine, in a process of its own."""

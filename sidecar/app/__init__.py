"""Puts the running program together: settings in, a running sidecar out."""

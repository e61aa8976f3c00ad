"""The demo's service."""

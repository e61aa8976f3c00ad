"""Fakes shared by the tests: real behaviour, small and in memory."""

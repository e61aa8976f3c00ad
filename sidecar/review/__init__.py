"""Looks at policy through the eyes of the decision: what would become of a call, and why. Pure."""

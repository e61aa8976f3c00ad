"""The one decision that the proxy asks for. Pure."""

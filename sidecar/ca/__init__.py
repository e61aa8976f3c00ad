"""Certificate profiles and signing. Pure."""

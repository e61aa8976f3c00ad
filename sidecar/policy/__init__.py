"""The reviewed policy file: model, strict loader, route matching."""

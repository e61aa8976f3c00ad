"""A second service, which calls the first one with an identity of its own."""

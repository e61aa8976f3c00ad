"""The operator's door: the admin API on a Unix socket, and the status port."""

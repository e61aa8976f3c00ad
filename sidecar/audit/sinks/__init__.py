"""Copies of the log behind the file, reached by name and imported only when chosen."""

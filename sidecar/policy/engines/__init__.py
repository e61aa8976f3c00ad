"""What answers "does policy permit this call?", reached by name and imported only when chosen."""

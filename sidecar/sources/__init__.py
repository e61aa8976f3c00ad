"""Where SVIDs come from, reached by name and imported only when chosen."""

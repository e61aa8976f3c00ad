"""SPIFFE IDs, SVIDs, bundles and snapshots: values. Pure."""

"""The benchmark: CPU per request of the sidecar beside Envoy doing the same work, measured in the same run."""

"""Every call to a service attributable to one workload, one purpose, one time window."""

__version__ = "0.1.0"

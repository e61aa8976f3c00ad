"""The ``sidecar`` command, one module per command group, each imported only when it is called."""

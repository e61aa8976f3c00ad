"""Each example runs, and a test runs it."""

"""What every method and every partitioner must hold, as checks to call from a test of one's own.

`fedlora new` writes such a test; the kit's own suites (tests/test_methods.py, tests/test_partition.py) call
the same checks. Each check takes a registered name, and
raises an `AssertionError` that says what does not hold.
"""

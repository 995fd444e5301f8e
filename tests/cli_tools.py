"""Command lines that tests of the command line share."""

#: valid, and answered with a warning: so large a delta promises nothing
LARGE_DELTA = [
    "noise",
    "--epsilon",
    "6",
    "--delta",
    "1e-3",
    "--batch",
    "10",
    "--examples",
    "1000",
    "--steps",
    "10",
]

"""Measurements against a floor taken in the same run. `make bench`, or `python -m tests.bench --only sweep`."""

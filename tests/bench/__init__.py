"""Measurements against a reference of the same run. `make bench`, or `python -m tests.bench --only sweep,pool`."""

"""Uncorrectable memory errors since the driver was loaded."""

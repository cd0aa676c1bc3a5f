"""Rates of NVLink errors."""

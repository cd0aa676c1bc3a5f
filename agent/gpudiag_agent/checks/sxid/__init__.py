"""Errors of NVSwitches (SXid) from the kernel log."""

"""Fewer GPUs answer than the PCI bus shows."""

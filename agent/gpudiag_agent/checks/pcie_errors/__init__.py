"""Rates of PCIe replays and errors."""

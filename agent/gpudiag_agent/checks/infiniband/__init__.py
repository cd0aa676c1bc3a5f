"""Ports of InfiniBand and RoCE adapters."""

"""Checksum of the board's configuration memory."""

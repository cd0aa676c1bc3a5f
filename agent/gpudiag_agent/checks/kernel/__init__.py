"""Trouble that the driver tells of without an XID: initialisation, GSP storms, version mismatch, link training."""

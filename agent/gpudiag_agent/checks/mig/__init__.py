"""A change of MIG mode that waits for a reset."""

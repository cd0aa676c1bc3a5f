"""ECC switched off, or a change that waits for a reset."""

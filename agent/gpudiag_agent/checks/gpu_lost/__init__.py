"""A GPU has fallen off the bus, vanished, or waits for a reset."""

"""Memory rows that wait for a remap, or could not be remapped."""

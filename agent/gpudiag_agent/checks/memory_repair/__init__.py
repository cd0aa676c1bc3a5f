"""Channel or TPC repairs that wait for a reset, and memory beyond repair."""

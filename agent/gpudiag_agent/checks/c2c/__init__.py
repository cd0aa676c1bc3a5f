"""Chip-to-chip links of Grace superchips."""

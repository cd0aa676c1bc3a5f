"""Clocks that somebody held below their default."""

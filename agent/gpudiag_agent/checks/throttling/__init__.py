"""Clocks held down by hardware: thermal slowdown, power brake."""

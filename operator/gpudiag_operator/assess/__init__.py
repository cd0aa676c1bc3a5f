"""Assess: from what an agent said to the health of its node, and from there to a row of a diagnostic. Pure."""

"""Temperature against the GPU's own limits."""

"""Whether the driver stays loaded while nobody uses the GPU."""

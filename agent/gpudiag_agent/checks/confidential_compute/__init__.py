"""Whether GPUs in confidential mode accept work."""

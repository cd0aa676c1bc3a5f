"""Power limit against its default, and power supply."""

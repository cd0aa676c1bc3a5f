"""The driver or its library cannot be used, and reads that fail: what blinds the agent."""

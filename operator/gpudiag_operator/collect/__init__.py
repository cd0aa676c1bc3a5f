"""Collect: keep asking every target's agent, and know for each node what it last said or why it did not."""

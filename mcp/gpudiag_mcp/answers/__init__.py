"""The shape of answers, their size, and the safety of text that came from a node."""

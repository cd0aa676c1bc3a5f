"""Discover: which nodes are to be read, and which Pod on each is asked."""

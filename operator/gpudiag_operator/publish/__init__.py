"""Publish: write what changed in meaning, at a bounded rate, worst first, with Events."""

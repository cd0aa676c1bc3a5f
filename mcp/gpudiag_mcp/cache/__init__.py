"""Watched copies of the resources, one per context, and what a caller may see of them."""

"""HTTPS: certificates from a folder that somebody else fills and renews, and a listener that is hard to stall."""

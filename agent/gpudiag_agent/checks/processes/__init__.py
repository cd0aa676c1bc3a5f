"""Memory and processes that belong to nobody."""

"""The checks: one folder each, one interface (``base``), one list (``registry``)."""

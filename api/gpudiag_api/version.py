"""The version of the whole distribution: one number for agent, operator, facade and command line."""

__version__ = "0.1.0"

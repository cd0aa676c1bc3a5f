"""What a command says instead of a traceback."""


class CommandError(Exception):
    """A command cannot go on; the message is complete sentences that say what to do."""

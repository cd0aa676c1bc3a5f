"""What the agent remembers over a restart.

store    sections, when they are written, what happens when they cannot be   (the event loop)
folder   one file per section: whole or not at all                           (I/O)
bounds   what a value that is read back may be                               (pure)
"""

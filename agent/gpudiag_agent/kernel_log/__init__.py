"""The kernel log: what the driver says when NVML no longer answers.

reader   device, FIFO or file → lines of text        (I/O)
record   one line → priority, sequence, time, text    (pure)
parse    text → what the driver means                 (pure)
decode   lines in order → events with identity        (pure, remembers the line before)
"""

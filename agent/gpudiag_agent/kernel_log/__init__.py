"""The kernel log: what the driver says when NVML no longer answers.

reader      which log to read, for ever: /dev/kmsg, else the journal     (I/O)
follow      device, FIFO, file, child process → bytes as they come       (I/O)
journalctl  the child process that reads the node's journal              (I/O)
intake      bytes → records, each once; cursor and gaps                  (pure, remembers its position)
record      one line → priority, sequence, time, text                    (pure)
journal     journal export format → entries → records                    (pure)
parse       text → what the driver means                                 (pure)
decode      records in order → events with identity and time             (pure, remembers the line before)
boot        this boot, and what time its microseconds are                (pure but for reading the clocks)
memory      all that must survive a restart together, as one value
"""

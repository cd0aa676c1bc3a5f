"""Commands that answer at once and end: ``gpudiag-agent check``, ``gpudiag-agent xid``."""

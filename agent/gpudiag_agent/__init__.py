"""The node agent: samples the GPUs of one node, judges them, and serves the report over HTTP."""

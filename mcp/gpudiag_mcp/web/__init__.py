"""HTTP without MCP: the gate in front of the protocol, the pages for probes and scrapes, the servers."""

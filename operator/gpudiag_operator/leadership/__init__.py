"""Who may act: Leases, the fence that stops a writer in time, and which nodes are whose."""

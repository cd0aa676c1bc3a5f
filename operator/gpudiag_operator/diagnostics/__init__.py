"""GPUDiagnostics: kopf feeds their changes into a registry, the scheduler judges them, a writer writes the verdicts."""

"""The MCP facade: reads and creates GPUDiagnostics for AI assistants. Nothing is built yet."""

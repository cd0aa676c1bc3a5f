"""The MCP server: the only part that imports ``mcp``. It binds questions to tools, resources and prompts."""

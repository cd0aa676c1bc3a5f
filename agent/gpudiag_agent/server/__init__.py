"""The agent's HTTP contract, version 1: JSON over aiohttp, served from memory."""

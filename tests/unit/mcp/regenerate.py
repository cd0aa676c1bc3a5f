"""Write the golden file of the schemas anew, on purpose: ``.venv/bin/python -m tests.unit.mcp.regenerate``."""

import asyncio
import json

from tests.unit.mcp.test_server import GOLDEN, schemas


def main() -> None:
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(asyncio.run(schemas(allow_create=True)), indent=1) + "\n")
    print(f"wrote {GOLDEN}; look at the difference: it is public API")


if __name__ == "__main__":
    main()

"""The first process of a node's own network, mount and pid namespaces: prepares them, starts every program, reaps.

Run as `unshare --net --mount --pid --fork --kill-child python init.py PLAN`. When it ends, however that happens, the
kernel ends everything in its pid namespace: servers, kubelet, containerd, shims and containers; and with the last of
them go the mounts and interfaces, which nobody outside ever saw.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Run the plan (a JSON file): mounts, commands that must succeed, then servers, until asked to stop."""
    plan: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.environ.update(plan["environment"])
    for command in plan["prepare"]:
        subprocess.run(command, check=True)
    servers: dict[int, str] = {}
    for name, command in plan["servers"].items():
        with Path(plan["logs"], f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        servers[process.pid] = name
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        pid, status = os.wait()  # orphans of containers come here as well
        if name := servers.get(pid):
            print(f"{name} ended with status {os.waitstatus_to_exitcode(status)}", flush=True)
            os._exit(1)


if __name__ == "__main__":
    main()

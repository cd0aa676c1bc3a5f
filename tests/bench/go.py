"""A Go client with a fixed pool of workers and the default transport, as a reported reference; only where Go is."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from gpudiag_operator.domain import Target

_SOURCE = Path(__file__).parent / "goclient" / "main.go"
_BUILD_SECONDS = 300
_RUN_SECONDS = 300


def sweep(targets: list[Target], *, workers: int, rounds: int) -> dict[str, dict[str, list[float]]] | None:
    """Wall and CPU seconds of each round, ``changed`` and ``unchanged``; None without Go."""
    tool = shutil.which("go")
    if tool is None:
        return None
    urls = [f"http://{target.pod.ip}:{target.pod.port}/v1/report" for target in targets if target.pod]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "goclient"
        subprocess.run([tool, "build", "-o", program, _SOURCE], check=True, timeout=_BUILD_SECONDS)
        told = json.dumps({"urls": urls, "workers": workers, "rounds": rounds})
        done = subprocess.run([program], input=told, capture_output=True, text=True, check=True, timeout=_RUN_SECONDS)
    answer: dict[str, dict[str, list[float]]] = json.loads(done.stdout)
    return answer

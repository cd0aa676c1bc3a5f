"""A real Prometheus and its promtool: those on PATH, or Debian's package, unpacked into the cache and not installed."""

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import yaml
from tests.e2e.onenode.toolbox import download

from gpudiag_cli.controlplane.recipe import cache_folder


class Programs(NamedTuple):
    prometheus: Path
    promtool: Path


def missing() -> str | None:
    """Why this machine cannot have them, or None."""
    if shutil.which("prometheus") and shutil.which("promtool"):
        return None
    wanted = ("apt-get", "dpkg-deb")
    absent = [name for name in wanted if shutil.which(name) is None]
    return f"neither prometheus and promtool nor {' and '.join(absent)} on PATH" if absent else None


def programs() -> Programs:
    """The programs; fetched once, where the machine has none."""
    found = shutil.which("prometheus"), shutil.which("promtool")
    if found[0] and found[1]:
        return Programs(Path(found[0]), Path(found[1]))
    root = cache_folder() / "prometheus"
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent) as temporary:
            partial = Path(temporary)
            download(["prometheus"], partial)
            (package,) = partial.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", package, partial / "root"], check=True, timeout=60)
            (partial / "root").rename(root)
    return Programs(root / "usr" / "bin" / "prometheus", root / "usr" / "bin" / "promtool")


class Prometheus:
    """A running server that looks every second; use it as a context manager.

    Args:
        program: of :func:`programs`.
        folder: for its files; must be empty.
        scrape: its ``scrape_configs``.
        rules: groups of rules, as a PrometheusRule has them in its ``spec``.
    """

    def __init__(self, program: Path, folder: Path, *, scrape: list[dict[str, Any]], rules: dict[str, Any]) -> None:
        (folder / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
        often = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config = {"global": often, "rule_files": ["rules.yaml"], "scrape_configs": scrape}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        self._folder, self._program, self.url = folder, program, ""

    def __enter__(self) -> Self:
        command: list[str | Path] = [
            self._program,
            f"--config.file={self._folder}/prometheus.yaml",
            "--web.listen-address=127.0.0.1:0",
        ]
        log = self._folder / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, f"--storage.tsdb.path={self._folder}/data"], stdout=output, stderr=output
            )
        deadline = time.monotonic() + 60
        while not self._ready(log):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._stop()
                raise AssertionError(log.read_text(encoding="utf-8"))
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer of its API: ``ask("query", query="up")``."""
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> list[dict[str, str]]:
        """The labels of what an expression gives now."""
        return [one["metric"] for one in self.ask("query", query=expression)["result"]]

    def _ready(self, log: Path) -> bool:
        """Whether it serves; it listens before, and answers 503 then."""
        if (found := re.search(r"Listening on\" address=(\S+)", log.read_text(encoding="utf-8"))) is None:
            return False
        self.url = f"http://{found[1]}"
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()

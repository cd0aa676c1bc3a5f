"""One replica of a Deployment: an operator behind a proxy of its own, started again whenever it ends."""

import json
import time

from tests.cluster.operator.conftest import OperatorProcess
from tests.cluster.soak.stage import Stage
from tests.cluster.soak.storm import Storm, Weather

FLAGS = ("--breaker-open", "2s", "--breaker-open-max", "4s", "--breaker-window", "5s")
MAY_DIE_OF = "is held by"
"""A deposed leader ends, to be started again: that alone is no fault."""


class Replica:
    """Start it; ``look`` at it often."""

    def __init__(self, stage: Stage, weather: Weather, name: str) -> None:
        self.storm = Storm(stage.world.rig.plane, stage.world.rig.folder, weather, name=name, kill=self.kill)
        self.process: OperatorProcess | None = None
        self.started_at = 0.0
        self._stage = stage
        self._killed = False

    def start(self) -> None:
        self._killed = False
        self.started_at = time.monotonic()
        kubeconfig = str(self.storm.next_life())
        clock = self._stage.clock.environment
        self.process = self._stage.world.start(*FLAGS, "--kubeconfig", kubeconfig, ready=False, environment=clock)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self._killed = True
            self.process.process.kill()

    def look(self) -> None:
        """Start it again if it has ended; it must not have ended by itself."""
        assert self.process is not None
        code = self.process.process.poll()
        if code is None:
            return
        last = self._last_words()
        assert self._killed or MAY_DIE_OF in last, f"{self.storm.kubeconfig} ended with {code}: {last}"
        self.start()

    def stop(self) -> None:
        if self.process is not None and self.process.process.poll() is None:
            self.process.stop()

    @property
    def leads(self) -> bool:
        return self.process is not None and self.process.metric("gpudiag_operator_leader{") == 1

    def _last_words(self) -> str:
        assert self.process is not None
        lines = self.process.log.read_text().splitlines()[-40:]
        for line in reversed(lines):
            try:
                record = json.loads(line)
            except ValueError:
                return line
            if record.get("level") in ("critical", "error"):
                return str(record["message"])
        return lines[-1] if lines else "nothing"

"""Everything the agent remembers for those who ask later: samples, changes, XIDs."""

from gpudiag_agent.recorder.recorder import Recorder
from gpudiag_agent.recorder.xid_log import XIDLog
from gpudiag_agent.sample import Sample
from gpudiag_api.wire import Report


class History:
    """The flight recorder and the log of XIDs, fed together.

    Args:
        interval: seconds between samples.
        epoch: names this life of the agent in cursors; a short word.
    """

    def __init__(self, *, interval: float, epoch: str) -> None:
        self.recorder = Recorder(interval)
        self.xids = XIDLog(epoch)

    def sampled(self, sample: Sample) -> None:
        """Take a finished sample in which every GPU is named."""
        self.recorder.sampled(sample)

    def reported(self, report: Report, now: float) -> None:
        """Take a new report; ``now`` in Unix seconds."""
        self.recorder.reported(report, now)
        self.xids.update(report.xids)

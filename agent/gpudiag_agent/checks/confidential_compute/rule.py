"""Confidential computing: whether the GPUs of a confidential virtual machine accept work. About the node.

| what | finding | cleared by |
|---|---|---|
| mode on, GPUs not ready for :data:`GRACE` seconds | ConfidentialComputeNotReady, Warning | ready; mode off |

After boot the GPUs refuse work until they have been attested, hence the wait. Without confidential mode there is
nothing to be ready for. (``nvmlSystemGetConfComputeState``, ``nvmlSystemGetConfComputeGpusReadyState``)
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence
from gpudiag_agent.sample import Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

GRACE = 300.0
"""Seconds."""


class ConfidentialCompute:
    """See the module."""

    name = Check.CONFIDENTIAL_COMPUTE
    needs = Witness.NVML

    def __init__(self) -> None:
        self._unready_since: float | None = None
        self._read_at = 0.0

    def observe(self, sample: Sample) -> None:
        """Remember since when the GPUs refuse work."""
        if sample.fault is not None:
            return
        if sample.confidential_compute and sample.confidential_compute_ready is False:
            since = sample.taken_at if self._unready_since is None else self._unready_since
            self._unready_since, self._read_at = min(since, sample.taken_at), sample.taken_at
        elif sample.confidential_compute_ready or sample.confidential_compute is False:
            self._unready_since = None

    def judge(self, view: View) -> Iterable[Problem]:
        """The node whose GPUs refuse work."""
        if self._unready_since is None or self._read_at - self._unready_since < GRACE:
            return
        yield Problem(
            check=Check.CONFIDENTIAL_COMPUTE,
            reason="ConfidentialComputeNotReady",
            severity=Severity.WARNING,
            blame=Blame.ENVIRONMENT,
            action=Action.NONE,
            message="The GPUs are in confidential mode and accept no work, because nobody has declared them ready. "
            "Attest them, then: nvidia-smi conf-compute -srs 1.",
            evidence=(evidence("confidentialComputeReady", "false", threshold="true"),),
        )

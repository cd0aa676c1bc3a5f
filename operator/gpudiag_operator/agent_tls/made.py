"""Makes the parts that the settings ask for."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gpudiag_operator.agent_tls.keeper import FileTrust, Keeper, ManagedTrust
from gpudiag_operator.agent_tls.trust import AgentTrust, Secret, TokenFile
from gpudiag_operator.collect.outcome import TokenSource
from gpudiag_operator.kube.api import KubeAPI
from gpudiag_operator.settings import Settings


class CertificateCollector(Collector):
    """When the agents' certificate ends.

    Args:
        ends_at: Unix seconds; None: not known.
    """

    def __init__(self, ends_at: Callable[[], float | None]) -> None:
        self._ends_at = ends_at

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The family, empty where nothing is known."""
        family = GaugeMetricFamily(
            "gpudiag_operator_agent_certificate_end_timestamp_seconds",
            "When the certificate that the operator made for the agents ends, Unix time.",
        )
        if (ends_at := self._ends_at()) is not None:
            family.add_metric([], ends_at)
        yield family


def make_token(settings: Settings) -> TokenSource:
    """What is shown to agents."""
    if settings.agent_token_file is None:
        return lambda: None
    return TokenFile(Path(settings.agent_token_file))


def make_trust(settings: Settings) -> AgentTrust | None:
    """Whom to believe; None: agents speak plain HTTP."""
    if settings.agent_tls == "off":
        return None
    client = None if settings.agent_client_cert_dir is None else Path(settings.agent_client_cert_dir)
    return AgentTrust(settings.agent_server_name or f"gpudiag-agent.{settings.namespace}.svc", client=client)


def make_keeper(
    settings: Settings, trust: AgentTrust | None, *, api: KubeAPI, leads: Callable[[], bool]
) -> Keeper | None:
    """What keeps the trust current; None: there is none to keep.

    Args:
        settings: see there.
        trust: of :func:`make_trust`.
        api: writes pass the leader's fence.
        leads: whether this process may write.
    """
    if trust is None:
        return None
    if settings.agent_ca_file is not None:
        return FileTrust(Path(settings.agent_ca_file), trust)
    return ManagedTrust(
        api,
        secret=Secret(settings.namespace, settings.agent_tls_secret),
        trust=trust,
        lifetime=settings.agent_cert_lifetime,
        leads=leads,
        now=time.time,
    )

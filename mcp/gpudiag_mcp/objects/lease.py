"""What is read of the operator's Lease."""

import msgspec

from gpudiag_mcp.objects.parts import Part


class _LeaseSpec(Part, frozen=True):
    renew_time: str = ""
    lease_duration_seconds: int = 0


class Lease(Part, frozen=True):
    """The operator's sign of life."""

    spec: _LeaseSpec = _LeaseSpec()


lease_from_json = msgspec.json.Decoder(Lease).decode

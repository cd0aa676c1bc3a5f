"""Field names on the wire and in resources: one rule from snake_case to Kubernetes' camelCase.

The API conventions keep acronyms whole (``podIP``, ``runID``), which the usual converters do not.
"""

_ACRONYMS = {
    "gpu": "GPU",
    "gpus": "GPUs",
    "id": "ID",
    "ip": "IP",
    "mig": "MIG",
    "pci": "PCI",
    "sm": "SM",
    "ttl": "TTL",
    "uuid": "UUID",
    "xid": "XID",
    "xids": "XIDs",
}


def camel(name: str) -> str:
    """``gpu_uuid`` becomes ``gpuUUID``, ``expected_gpus_per_node`` becomes ``expectedGPUsPerNode``."""
    first, *rest = name.split("_")
    return first + "".join(_ACRONYMS.get(word, word.capitalize()) for word in rest)

"""Builds the kubelet's pod-resources messages, byte by byte, as protocol buffers."""


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def devices(resource: str, *ids: str) -> bytes:
    return field(1, resource) + b"".join(field(2, one) for one in ids)


def claimed(*, driver: str = "", device: str = "", cdi: tuple[str, ...] = ()) -> bytes:
    names = b"".join(field(1, field(1, name)) for name in cdi)
    resource = names + (field(2, driver) if driver else b"") + field(3, "pool") + (field(4, device) if device else b"")
    return field(2, "claim") + field(3, "ns") + field(4, resource)


def container(name: str, *held: bytes, claims: tuple[bytes, ...] = ()) -> bytes:
    return field(1, name) + b"".join(field(2, one) for one in held) + b"".join(field(5, one) for one in claims)


def pod(namespace: str, name: str, *containers: bytes) -> bytes:
    return field(1, name) + field(2, namespace) + b"".join(field(3, one) for one in containers)


def listed(*pods: bytes) -> bytes:
    return b"".join(field(1, one) for one in pods)


def allocatable(*held: bytes) -> bytes:
    return b"".join(field(1, one) for one in held) + field(2, b"\x00\x01\x02")

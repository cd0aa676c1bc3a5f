"""A stand-in for NVIDIA's device plugin: offers GPUs by name to a real kubelet, and gives containers nothing.

Run in the node's mount namespace: `python deviceplugin.py UUID …`. The few messages of the kubelet's device plugin API
(v1beta1) are written by hand: protocol buffers with strings and booleans only.
"""

import sys
import threading
from concurrent import futures
from pathlib import Path

import grpc  # type: ignore[import-untyped]

FOLDER = Path("/var/lib/kubelet/device-plugins")
SOCKET = "gpudiag-e2e.sock"
SERVICE = "v1beta1.DevicePlugin"


def text(number: int, value: str | bytes) -> bytes:
    """A field of a message: a string or a message; lengths below 16384."""
    data = value.encode() if isinstance(value, str) else value
    length = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
    return bytes([number << 3 | 2]) + length + data


def main() -> None:
    """Serve until killed."""
    uuids = sys.argv[1:]
    devices = b"".join(text(1, text(1, uuid) + text(2, "Healthy")) for uuid in uuids)
    forever = threading.Event()

    def watch(_request: bytes, _context: object):  # type: ignore[no-untyped-def]
        yield devices
        forever.wait()

    handlers = {
        "GetDevicePluginOptions": grpc.unary_unary_rpc_method_handler(lambda *_: b""),
        "ListAndWatch": grpc.unary_stream_rpc_method_handler(watch),
        # One answer for the one container that a request is about.
        "Allocate": grpc.unary_unary_rpc_method_handler(lambda *_: text(1, b"")),
    }
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    (FOLDER / SOCKET).unlink(missing_ok=True)
    server.add_insecure_port(f"unix://{FOLDER / SOCKET}")
    server.start()
    with grpc.insecure_channel(f"unix://{FOLDER / 'kubelet.sock'}") as channel:
        register = channel.unary_unary("/v1beta1.Registration/Register")
        register(text(1, "v1beta1") + text(2, SOCKET) + text(3, "nvidia.com/gpu"), timeout=10)
    print("registered", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()

"""A real gRPC server (grpcio) in the kubelet's place: `python pod_resources_server.py SOCKET < script.json`.

The script maps a method to the answer in hexadecimal, or to a status code's name. It says `ready` when it listens.
"""

import json
import sys
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc  # type: ignore[import-untyped]


def main() -> None:
    script: dict[str, str] = json.loads(sys.stdin.readline())

    def answer(method: str) -> Callable[[bytes, Any], bytes]:
        def call(request: bytes, context: Any) -> bytes:
            if request != b"":
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is an empty message")
            said = script[method]
            if said.isupper() and hasattr(grpc.StatusCode, said):
                context.abort(grpc.StatusCode[said], "not today, 100 % sure: ~{\\}~ ä")
            return bytes.fromhex(said)

        return call

    handlers = {name: grpc.unary_unary_rpc_method_handler(answer(name)) for name in script}
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1.PodResourcesLister", handlers),))
    server.add_insecure_port(f"unix:{sys.argv[1]}")
    server.start()
    print("ready", flush=True)
    sys.stdin.readline()
    server.stop(0)


if __name__ == "__main__":
    main()

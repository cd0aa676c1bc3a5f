"""Asks addresses from inside a Pod, as what runs there would: a JSON list of requests in, one of answers out.

Run by `kubectl exec -i POD -- python3 -c TEXT-OF-THIS-FILE`: every image of ours has Python, none has curl.
"""

import hashlib
import http.client
import json
import os
import socket
import ssl
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


def ask(wanted: dict[str, Any]) -> dict[str, Any]:
    """One answer; status 0: there was none, and the body says why.

    Args:
        wanted: ``url`` (variables are expanded); perhaps ``method``, ``body``, ``headers``, ``token_files`` (header:
            path of a token), ``ca`` (PEM) or ``ca_file``, and ``server_name``, which the certificate must carry.
    """
    url = urlsplit(os.path.expandvars(wanted["url"]))
    host, port = url.hostname or "", url.port or 443
    headers = dict(wanted.get("headers", {}))
    for name, path in wanted.get("token_files", {}).items():
        headers[name] = f"Bearer {Path(path).read_text(encoding='ascii').strip()}"
    answer: dict[str, Any] = {"status": 0, "body": "", "certificate": ""}
    connection = http.client.HTTPConnection(host, port)
    try:
        opened = connection.sock = socket.create_connection((host, port), timeout=15)
        if url.scheme == "https":
            context = ssl.create_default_context(cafile=wanted.get("ca_file"), cadata=wanted.get("ca"))
            secured = context.wrap_socket(opened, server_hostname=wanted.get("server_name", host))
            answer["certificate"] = hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()
            connection.sock = secured
        target = f"{url.path}?{url.query}" if url.query else url.path
        connection.request(wanted.get("method", "GET"), target, wanted.get("body"), headers)
        said = connection.getresponse()
        answer |= {"status": said.status, "body": said.read(1 << 20).decode(errors="replace")}
    except OSError as error:
        answer["body"] = f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return answer


if __name__ == "__main__":
    print(json.dumps([ask(one) for one in json.load(sys.stdin)]))

"""`helm test`: wait up to a minute until GPUDiagnostic/fleet is Ready; say what it says. Standard library only."""
# ruff: noqa: INP001, T201

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request

MOUNT = os.environ.get("SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount")
HOST, PORT = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
ADDRESS = f"[{HOST}]" if ":" in HOST else HOST
PATH = f"apis/gpudiag.dev/v1alpha1/namespaces/{os.environ['NAMESPACE']}/gpudiagnostics/fleet"
SECONDS = float(os.environ.get("SECONDS_TO_WAIT", "60"))


def look() -> tuple[bool, str]:
    """Whether it is Ready, and what it says."""
    with open(f"{MOUNT}/token") as token:  # noqa: PTH123
        request = urllib.request.Request(
            f"https://{ADDRESS}:{PORT}/{PATH}", headers={"Authorization": f"Bearer {token.read().strip()}"}
        )
    try:
        context = ssl.create_default_context(cafile=f"{MOUNT}/ca.crt")
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:  # noqa: S310
            status = json.load(answer).get("status", {})
    except (OSError, ValueError) as error:
        return False, f"cannot be read: {error}"
    for condition in status.get("conditions", []):
        if condition["type"] == "Ready":
            said = f"{condition['reason']}: {condition['message']} (verdict {status.get('verdict', 'none')})"
            return condition["status"] == "True", said
    return False, "the operator has not answered yet: look at the logs of deployment/gpudiag-operator"


deadline = time.monotonic() + SECONDS
while True:
    ready, said = look()
    if ready or time.monotonic() > deadline:
        break
    time.sleep(1)
print(f"GPUDiagnostic/fleet {'is Ready' if ready else 'is not Ready'}: {said}")
sys.exit(0 if ready else 1)

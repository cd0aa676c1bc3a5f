"""The flags of tokens and TLS: what goes together, and what a Pod finds by itself."""

from pathlib import Path

import pytest

from gpudiag_agent import access_options, options
from gpudiag_agent.options import Options

TOKENS = ("--auth", "tokenreview", "--allowed-service-accounts", "ops/operator")
POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def parse(*arguments: str, **environment: str) -> Options:
    return options.parse(arguments, environment)


def test_the_bare_command_is_plain_and_open() -> None:
    asked = parse()
    assert (asked.auth, asked.tls_cert_dir, asked.health_port) == ("none", None, 0)
    assert asked.anonymous_paths == ("/healthz", "/readyz", "/metrics")


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        (POD, "https://10.96.0.1:443"),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}, "https://[fd00::1]:6443"),
    ],
)
def test_a_pod_finds_its_api_server(environment: dict[str, str], url: str) -> None:
    assert parse(*TOKENS, **environment).api_server == url
    assert parse(*TOKENS, "--api-server", "https://other:1/", **environment).api_server == "https://other:1"


def test_what_the_manifests_set_is_taken_from_the_environment() -> None:
    asked = parse(
        GPUDIAG_AUTH="tokenreview",
        GPUDIAG_ALLOWED_SERVICE_ACCOUNTS="gpudiag-system/gpudiag-operator, monitoring/prometheus",
        GPUDIAG_ANONYMOUS_PATHS="none",
        GPUDIAG_TLS_CERT_DIR="/etc/gpudiag-tls",
        GPUDIAG_HEALTH_PORT="9814",
        **POD,
    )
    assert asked.allowed_service_accounts == ("gpudiag-system/gpudiag-operator", "monitoring/prometheus")
    assert (asked.anonymous_paths, asked.health_port) == ((), 9814)
    assert asked.tls_cert_dir == Path("/etc/gpudiag-tls")


def test_a_single_look_in_the_same_pod_needs_none_of_it() -> None:
    looked, _ = options.parse_check(["--source", "simulated"], {"GPUDIAG_AUTH": "tokenreview", **POD})
    assert (looked.auth, looked.tls_cert_dir) == ("none", None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--auth", "tokenreview"], ["--allowed-service-accounts", "gpudiag-system/gpudiag-operator"]),
        ([*TOKENS], ["--api-server", "https://"]),
        (["--auth", "basic"], ["'basic'", "none, tokenreview"]),
        (["--allowed-service-accounts", "operator"], ["'operator'", "NAMESPACE/NAME"]),
        (["--allowed-service-accounts", ""], ["NAMESPACE/NAME"]),
        (["--api-server", "http://x"], ["'http://x'", "https://HOST:PORT"]),
        (["--anonymous-paths", "/v1/report"], ["'/v1/report'", "/metrics"]),
        (["--tls-client-auth", "require"], ["--tls-cert-dir"]),
        (["--health-port", "9810"], ["--health-port", "--port"]),
        (["--auth-audience", "a b"], ["'a b'", access_options.AUDIENCE]),
    ],
)
def test_wrong_usage_says_what_to_write(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert said.count("\n") == 1
    assert [word for word in words if word not in said] == []

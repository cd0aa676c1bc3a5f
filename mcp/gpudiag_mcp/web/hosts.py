"""Host headers that are answered (protection from DNS rebinding)."""

from gpudiag_mcp.options import Options

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def allowed_hosts(options: Options) -> list[str]:
    """Loopback, the names of the Service, and what was configured; each with and without a port."""
    name, namespace = options.service_name, options.namespace
    service = (name, f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local")
    derived = [form for host in (*_LOOPBACK, *service) for form in (host, f"{host}:*")]
    return [*derived, *options.allowed_hosts]


def allowed_origins(hosts: list[str]) -> list[str]:
    """Pages of the same hosts; a request without an Origin, from anything but a browser, is allowed as well."""
    return [f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")]

"""Kubeconfig files: which contexts there are, and what each of them says. Nothing is connected here.

Files are merged as kubectl does: the first file that names something wins, relative paths belong to their file. The
current context is only the default of an argument; nothing here is state that a call could change.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gpudiag_mcp.kube.errors import AccessError

IN_CLUSTER = "in-cluster"
"""Name of the only context of a process that runs in a Pod without a kubeconfig."""

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LARGEST_FILE = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A cluster or a user: its fields, and the folder that relative paths in it start from."""

    fields: Mapping[str, Any] = field(repr=False)
    base: Path

    def text(self, name: str) -> str:
        """A text field; empty when absent.

        Raises:
            AccessError: it is not text.
        """
        value = self.fields.get(name) or ""
        if not isinstance(value, str):
            raise AccessError(f"The kubeconfig's field {name} must be text.")
        return value

    def path(self, name: str) -> Path | None:
        """A field that names a file, None when absent."""
        value = self.text(name)
        return Path(self.base, value) if value else None


@dataclass(frozen=True, kw_only=True)
class Context:
    """One context: a cluster, a user and a default namespace."""

    name: str
    cluster_name: str
    user_name: str
    namespace: str
    cluster: Entry
    user: Entry


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """What the configuration offers; ``problem`` says why it offers nothing."""

    names: tuple[str, ...] = ()
    current: str = ""
    problem: str = ""
    files: tuple[Path, ...] = ()
    _documents: tuple[tuple[Path, Mapping[str, Any]], ...] = field(default=(), repr=False)

    def context(self, name: str) -> Context:
        """The context of that name; an empty name is the current one.

        Raises:
            AccessError: there is none; the message lists those there are.
        """
        if self.problem:
            raise AccessError(self.problem)
        wanted = name or self.current
        if not wanted:
            raise AccessError(f"The kubeconfig has no current-context; pass context: {_listed(self.names)}.")
        if wanted not in self.names:
            raise AccessError(f"There is no context {wanted[:80]!r}; pass one of {_listed(self.names)}.")
        if wanted == IN_CLUSTER and not self._documents:
            return _in_cluster()
        said = self._entry("contexts", wanted, "context").fields
        cluster, user = str(said.get("cluster", "")), str(said.get("user", ""))
        return Context(
            name=wanted,
            cluster_name=cluster,
            user_name=user,
            namespace=str(said.get("namespace") or "default"),
            cluster=self._entry("clusters", cluster, "cluster"),
            user=self._entry("users", user, "user") if user else Entry(fields={}, base=Path()),
        )

    def _entry(self, kind: str, name: str, within: str) -> Entry:
        for path, document in self._documents:
            for entry in _entries(document, kind):
                if entry.get("name") == name:
                    fields = entry.get(within) or {}
                    if isinstance(fields, Mapping):
                        return Entry(fields=fields, base=path.parent)
        raise AccessError(f"The kubeconfig has no {within} {name[:80]!r}; see `kubectl config view`.")


def load(kubeconfig: Path | None = None, environ: Mapping[str, str] = os.environ) -> Contexts:
    """Read the configuration: the file given, ``$KUBECONFIG``, the Pod we run in, ``~/.kube/config``.

    Never raises: a server without a cluster still lists its tools; what is wrong is told by ``problem``.
    """
    paths: tuple[Path, ...]
    if kubeconfig is not None:
        paths = (kubeconfig,)
    elif listed := tuple(Path(one) for one in environ.get("KUBECONFIG", "").split(os.pathsep) if one):
        paths = listed
    elif "KUBERNETES_SERVICE_HOST" in environ:
        return Contexts(names=(IN_CLUSTER,), current=IN_CLUSTER)
    else:
        paths = (Path("~/.kube/config").expanduser(),)
    try:
        documents = tuple(_read(paths, must_exist=kubeconfig is not None))
    except AccessError as error:
        return Contexts(problem=str(error), files=paths)
    if not documents:
        shown = os.pathsep.join(map(str, paths))
        return Contexts(problem=f"There is no kubeconfig at {shown}; start the server with --kubeconfig.", files=paths)
    names = tuple(
        dict.fromkeys(
            str(entry["name"]) for _, doc in documents for entry in _entries(doc, "contexts") if "name" in entry
        )
    )
    current = next((str(doc["current-context"]) for _, doc in documents if doc.get("current-context")), "")
    if not names:
        return Contexts(problem="The kubeconfig names no context; see `kubectl config get-contexts`.", files=paths)
    return Contexts(
        names=names, current=current or (names[0] if len(names) == 1 else ""), files=paths, _documents=documents
    )


def _read(paths: Iterable[Path], *, must_exist: bool) -> Iterable[tuple[Path, Mapping[str, Any]]]:
    for path in paths:
        try:
            if path.stat().st_size > _LARGEST_FILE:
                raise AccessError(f"The kubeconfig {path} is larger than {_LARGEST_FILE >> 20} MiB.")
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if must_exist:
                raise AccessError(f"There is no kubeconfig at {path}; correct --kubeconfig.") from None
            continue  # as kubectl does with a list of files
        except OSError as error:
            raise AccessError(f"The kubeconfig {path} cannot be read: {error.strerror}.") from None
        except (yaml.YAMLError, UnicodeDecodeError):
            raise AccessError(f"The kubeconfig {path} is not YAML.") from None
        if not isinstance(document, Mapping):
            raise AccessError(f"The kubeconfig {path} is not a kubeconfig: it holds no mapping.")
        yield path, document


def _entries(document: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    found = document.get(kind) or []
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []


def _in_cluster(environ: Mapping[str, str] = os.environ) -> Context:
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        namespace = (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    except OSError:
        namespace = "default"
    address = f"[{host}]" if ":" in host else host
    return Context(
        name=IN_CLUSTER,
        cluster_name=IN_CLUSTER,
        user_name="the Pod's service account",
        namespace=namespace,
        cluster=Entry(
            fields={"server": f"https://{address}:{port}", "certificate-authority": str(SERVICE_ACCOUNT / "ca.crt")},
            base=SERVICE_ACCOUNT,
        ),
        user=Entry(fields={"tokenFile": str(SERVICE_ACCOUNT / "token")}, base=SERVICE_ACCOUNT),
    )


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:20])
    return f"{shown}, … ({len(names)} in all)" if len(names) > 20 else shown

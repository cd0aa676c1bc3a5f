"""The folder of ``--tls-cert-dir``: ``tls.crt``, ``tls.key`` and, for mutual TLS, ``ca.crt``; as a Secret is mounted.

It may be empty when the agent starts: then nobody is answered and the agent is not ready, until the files come. A
change is taken up for new connections; those that are open stay. A change that cannot be used changes nothing.
"""

import logging
import ssl
from pathlib import Path

from gpudiag_agent.clock import Clock

_log = logging.getLogger(__name__)

WATCH_PERIOD = 5.0
"""Seconds between two looks. The kubelet takes up to a minute or two to bring a changed Secret."""
CERTIFICATE, KEY, CLIENT_CA = "tls.crt", "tls.key", "ca.crt"

_Stamp = tuple[tuple[int, int, int] | None, ...]


class Certificates:
    """The certificate in force.

    Args:
        folder: see the module.
        mutual: whether clients must show a certificate that ``ca.crt`` vouches for.
        clock: for waits.
    """

    def __init__(self, folder: Path, *, mutual: bool, clock: Clock) -> None:
        self._folder = folder
        self._names = (CERTIFICATE, KEY, *((CLIENT_CA,) if mutual else ()))
        self._mutual = mutual
        self._clock = clock
        self._stamp: _Stamp | None = None
        self.context: ssl.SSLContext | None = None
        """For new connections; None: there is no certificate yet."""
        self.problem: str | None = None
        """Why the files as they are now are not used; None: they are."""
        self.reload()

    async def watch(self) -> None:
        """Look at the files every few seconds until cancelled."""
        while True:
            await self._clock.sleep(WATCH_PERIOD)
            self.reload()

    def reload(self) -> None:
        """Read the files if they are others. A Secret changes by a link, hence the inodes."""
        stamp = tuple(_stamp(self._folder / name) for name in self._names)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        missing = [name for name, found in zip(self._names, stamp, strict=True) if found is None]
        try:
            if missing:
                self.problem = f"there is no {' and no '.join(missing)} in {self._folder}"
            else:
                # Of a folder that a link points to: one certificate and its own key, also while the link moves on.
                self.context = _load((self._folder / CERTIFICATE).resolve().parent, mutual=self._mutual)
                self.problem = None
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            self._stamp = None  # a file may have been half written: look again
            self.problem = f"{self._folder} cannot be used: {_explain(error)}"
        if self.problem is None:
            _log.info("certificate loaded", extra={"folder": str(self._folder)})
        else:
            kept = "the one before stays in force" if self.context is not None else "nobody is answered until it is"
            _log.warning("no usable certificate, %s", kept, extra={"reason": self.problem})

    @property
    def unready(self) -> str | None:
        """Why nobody can be answered, in a sentence; None: they can."""
        if self.context is not None:
            return None
        return f"TLS is on and {self.problem}; the operator or cert-manager puts it into the Secret"


def _load(folder: Path, *, mutual: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY, password=_no_password)
    if mutual:
        # Who shows a wrong one gets no connection; who shows none is told so over HTTP (server/access.py).
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cafile=folder / CLIENT_CA)
    return context


def _no_password() -> str:
    """OpenSSL would ask the terminal."""
    raise ValueError("the key must not be encrypted")


def _explain(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return f"{KEY} is not the key of {CERTIFICATE}"
    return str(reason or error)[:200]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size

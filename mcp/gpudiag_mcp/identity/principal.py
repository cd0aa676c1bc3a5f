"""A user as the API server names them, and how to act as that user."""

from dataclasses import dataclass, field
from urllib.parse import quote

import msgspec

from gpudiag_mcp.kube.api import Headers

_SERVICE_ACCOUNT = "system:serviceaccount:"
_EVERYBODY = "system:authenticated"


@dataclass(frozen=True, kw_only=True)
class Principal:
    """The user info of a TokenReview; hashable, so that rights are kept for exactly this user."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = field(default=(), repr=False)

    def impersonation(self) -> Headers:
        """Headers that make a request of ours one of this user (Kubernetes, "User impersonation").

        Groups that the API server adds by itself are left out: naming them would need a right for each.
        """
        headers = [("Impersonate-User", self.username)]
        if self.uid:
            headers.append(("Impersonate-Uid", self.uid))
        headers += [("Impersonate-Group", group) for group in self._own_groups()]
        for key, values in self.extra:
            headers += [(f"Impersonate-Extra-{quote(key, safe='-._~')}", value) for value in values]
        return tuple(headers)

    def _own_groups(self) -> list[str]:
        implied = {_EVERYBODY}
        if self.username.startswith(_SERVICE_ACCOUNT):
            namespace = self.username.removeprefix(_SERVICE_ACCOUNT).partition(":")[0]
            implied |= {"system:serviceaccounts", f"system:serviceaccounts:{namespace}"}
        own = [group for group in self.groups if group not in implied]
        # As soon as one group is named, the API server adds none but system:authenticated.
        return [group for group in self.groups if group != _EVERYBODY] if own else []


class UserInfo(msgspec.Struct, frozen=True):
    """``status.user`` of a TokenReview."""

    username: str = ""
    uid: str = ""
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None

    def principal(self) -> Principal:
        """The same as a value."""
        extra = tuple(sorted((key, tuple(values)) for key, values in (self.extra or {}).items()))
        return Principal(username=self.username, uid=self.uid, groups=tuple(self.groups or ()), extra=extra)

"""The metadata of any object: all that a copy needs to know beside its projection."""

import msgspec

from gpudiag_operator.kube.errors import ApiUnavailable

_INITIAL_EVENTS_END = "k8s.io/initial-events-end"
"""Annotation of the bookmark after the last object that was there already (KEP-3157)."""


class Head(msgspec.Struct, rename="camel"):
    """Who an object is."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""

    def key(self, *, qualified: bool) -> str:
        """Its name, or ``namespace/name``."""
        return f"{self.namespace}/{self.name}" if qualified else self.name


class _Object(msgspec.Struct):
    metadata: Head


class _Mark(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Bookmark(msgspec.Struct):
    metadata: _Mark


_object_decoder = msgspec.json.Decoder(_Object)
_bookmark_decoder = msgspec.json.Decoder(_Bookmark)


def head(raw: msgspec.Raw) -> Head:
    """The metadata of an object.

    Raises:
        ApiUnavailable: it has none, so it is no object of an API server.
    """
    try:
        return _object_decoder.decode(raw).metadata
    except msgspec.DecodeError as error:
        raise ApiUnavailable(f"not an object of an API server: {error}") from error


def end_of_initial_events(raw: msgspec.Raw) -> str | None:
    """The resource version of a bookmark that ends the initial events; None for any other bookmark.

    Raises:
        ApiUnavailable: it has no metadata.
    """
    try:
        mark = _bookmark_decoder.decode(raw).metadata
    except msgspec.DecodeError as error:
        raise ApiUnavailable(f"not a bookmark of an API server: {error}") from error
    return mark.resource_version if (mark.annotations or {}).get(_INITIAL_EVENTS_END) == "true" else None

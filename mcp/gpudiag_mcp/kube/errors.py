"""What can go wrong on the way to the API server. The sentences for people are made in ``answers.refusals``."""


class ApiError(Exception):
    """The API server answered with an error.

    Attributes:
        status: HTTP status, or ``code`` of the Status object inside a watch.
        reason: the machine-readable word, for example ``AlreadyExists``, ``Forbidden``, ``Expired``; empty if none.
        message: the server's sentence for people.
        retry_after: seconds the server asks to wait; None when it does not say.
        verb: what was asked: get, list, watch, create.
        resource: plural of the resource.
        group: its API group.
        namespace: of the request; empty for a cluster-scoped resource or for all namespaces.
        name: of the object; empty for collections.
    """

    def __init__(
        self,
        status: int,
        reason: str = "",
        message: str = "",
        *,
        retry_after: float | None = None,
        verb: str = "",
        resource: str = "",
        group: str = "",
        namespace: str = "",
        name: str = "",
    ) -> None:
        super().__init__(f"the API server answered {status} {reason}: {message}".rstrip(": "))
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.verb = verb
        self.resource = resource
        self.group = group
        self.namespace = namespace
        self.name = name

    @property
    def refuses_us(self) -> bool:
        """The identity is not known, or may not do this: what was copied with it must be forgotten."""
        return self.status in (401, 403)

    @property
    def gone(self) -> bool:
        """The resource version or the continue token is too old: list again."""
        return self.status == 410

    @property
    def kind_missing(self) -> bool:
        """The collection itself does not exist: the CustomResourceDefinition is not installed."""
        return self.status == 404 and not self.name

    @property
    def already_exists(self) -> bool:
        """A create found an object of that name."""
        return self.status == 409 and self.reason == "AlreadyExists"


class ApiUnavailable(Exception):  # noqa: N818  (a state, not a mistake; reads better where it is caught)
    """No answer from the API server: connection, TLS or time; or an answer that is not what an API server says."""


class AccessError(Exception):
    """There is no usable configuration or credential; the message is a sentence that says what to do."""

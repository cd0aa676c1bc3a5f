"""What can go wrong with the API server, as two types: it answered "no", or it did not answer."""


class ApiError(Exception):
    """The API server answered with an error.

    Attributes:
        status: HTTP status, or ``code`` of the Status object inside a watch.
        reason: the machine-readable word, for example ``AlreadyExists``, ``Conflict``, ``Expired``; empty if none.
        message: the server's sentence for people.
        retry_after: seconds the server asks to wait; None when it does not say.
    """

    def __init__(self, status: int, reason: str = "", message: str = "", retry_after: float | None = None) -> None:
        super().__init__(f"the API server answered {status} {reason}: {message}".rstrip(": "))
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def not_found(self) -> bool:
        """The object, or its kind, does not exist."""
        return self.status == 404

    @property
    def already_exists(self) -> bool:
        """A create found an object of that name."""
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """The object changed since the resource version of the request."""
        return self.status == 409 and not self.already_exists

    @property
    def gone(self) -> bool:
        """The resource version or the continue token is too old: list again."""
        return self.status == 410

    @property
    def throttled(self) -> bool:
        """Too many requests (priority and fairness)."""
        return self.status == 429

    @property
    def server_fault(self) -> bool:
        """The server's own trouble: the same request may work later."""
        return self.status >= 500

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later without a change."""
        return self.throttled or self.server_fault


class ApiUnavailable(Exception):  # noqa: N818  (a state, not a mistake; reads better where it is caught)
    """No answer from the API server: connection, TLS or time; or an answer that is not what an API server says."""

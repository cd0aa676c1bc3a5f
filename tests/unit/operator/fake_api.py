"""An API server in a dictionary: creates, merge patches, conflicts, and faults on demand."""

import copy
from collections.abc import Mapping
from typing import Any

from tests.unit.operator.crd_schema import problems, status_schema

from gpudiag_operator.kube.errors import ApiError, ApiUnavailable


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def merge(target: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7386."""
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            before = result.get(key)
            result[key] = merge(before if isinstance(before, Mapping) else {}, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


class FakeAPI:
    """Answers like the API server as far as publishing can see it."""

    def __init__(self, kind: str = "gpunodes") -> None:
        self._schema = status_schema(kind)
        self.objects: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        """Verb and path of each accepted write."""
        self.faults: list[ApiError | ApiUnavailable] = []
        """Raised by the next calls, one each."""
        self.refuse: dict[str, ApiError] = {}
        """By verb, for as long as it is there."""
        self.lose_answer = False
        """The next status is stored, and its answer never arrives."""
        self._version = 0

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self._version += 1
        metadata = {"uid": f"uid-{self._version}", "generation": 1, **body["metadata"]}
        metadata["resourceVersion"] = str(self._version)
        self.objects[path] = {**copy.deepcopy(dict(body)), "metadata": metadata}
        return self.objects[path]

    def edit(self, path: str, **metadata: Any) -> dict[str, Any]:
        """People change something."""
        return self.put(path, merge(self.objects[path], {"metadata": metadata}))

    async def get(self, path: str) -> dict[str, Any]:
        self._fail("get")
        return copy.deepcopy(self._find(path))

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self._fail("create")
        target = f"{path}/{body['metadata']['name']}"
        if target in self.objects:
            raise ApiError(409, "AlreadyExists", f"{target} exists")
        self.calls.append(("create", target))
        return copy.deepcopy(self.put(target, {key: value for key, value in body.items() if key != "status"}))

    async def patch(self, path: str, body: Mapping[str, Any], *, resource_version: str | None = None) -> dict[str, Any]:
        self._fail("patch")
        return self._patch("patch", path, body, resource_version)

    async def patch_status(
        self, path: str, body: Mapping[str, Any], *, resource_version: str | None = None
    ) -> dict[str, Any]:
        self._fail("patch_status")
        # As the real one: metadata in a status patch counts for nothing.
        answer = self._patch("status", path, {"status": body["status"]}, resource_version)
        found = list(problems(answer["status"], self._schema))
        assert not found, found
        if self.lose_answer:
            self.lose_answer = False
            raise ApiUnavailable("Server disconnected")
        return answer

    def _patch(self, verb: str, path: str, body: Mapping[str, Any], version: str | None) -> dict[str, Any]:
        stored = self._find(path)
        if version is not None and version != stored["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        self.calls.append((verb, path))
        return copy.deepcopy(self.put(path, merge(stored, body)))

    def _find(self, path: str) -> dict[str, Any]:
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        return self.objects[path]

    def _fail(self, verb: str) -> None:
        if verb in self.refuse:
            raise self.refuse[verb]
        if self.faults:
            raise self.faults.pop(0)

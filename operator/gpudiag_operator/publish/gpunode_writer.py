"""One GPUNode, written once: made or adopted, its Events, then its status. In this order, so a crash loses none."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from gpudiag_operator.domain import NodeState
from gpudiag_operator.kube.errors import ApiError
from gpudiag_operator.publish import occasions
from gpudiag_operator.publish import stored as gpunodes
from gpudiag_operator.publish.events import EventSpec, ObjectRef, Told, Writer
from gpudiag_operator.publish.gpunode import status_of
from gpudiag_operator.publish.meaning import Meaning
from gpudiag_operator.publish.patch import gpunode, metadata_patch, status_patch
from gpudiag_operator.publish.stored import Stored

log = logging.getLogger(__name__)

Spend = Callable[[], None]
"""Pays for one write."""


class GPUNodeWriter:
    """The requests behind one write.

    Args:
        api: where to.
        mirror: keys of Node labels that GPUNodes carry.
        on_write: told the kind of each accepted write.
        wall: Unix seconds.
    """

    def __init__(
        self, api: Writer, *, mirror: frozenset[str], on_write: Callable[[str], None], wall: Callable[[], float]
    ) -> None:
        self._api = api
        self._mirror = mirror
        self._on_write = on_write
        self._wall = wall
        self._told = Told()

    def forget(self, name: str) -> None:
        """The node is gone: nothing of it will be written again."""
        self._told.settled(name)

    def lacks_metadata(self, known: Stored, state: NodeState) -> bool:
        """Whether a GPUNode has not the owner or the labels it should have."""
        if not state.node_uid:  # no Node is known: nothing to own it, nothing to copy
            return False
        return known.owner_uid != state.node_uid or known.labels != self._labels(state)

    def _labels(self, state: NodeState) -> dict[str, str]:
        return {key: state.labels[key] for key in self._mirror if key in state.labels}

    async def write(
        self,
        state: NodeState,
        new: Meaning,
        known: Stored | None,
        *,
        spend: Spend,
        critical_xids: Collection[int],
    ) -> Stored:
        """Write a state.

        Args:
            state: to be written.
            new: its meaning.
            known: the GPUNode as stored; None: it is made, or looked at if it exists.
            spend: called before each write.
            critical_xids: see ``meaning``.

        Returns:
            What is stored now.

        Raises:
            ApiError: refused; what is known of the object may be wrong.
            ApiUnavailable: no answer.
        """
        if known is None:
            known = await self._create(state, spend, critical_xids)
        if self.lacks_metadata(known, state):
            known = await self._adopt(state, known, spend)
        transitions = {kind: since for kind, _, since in known.transitions}
        ref = ObjectRef(kind="GPUNode", name=state.name, uid=known.uid)
        for event in occasions.of_node(known.meaning, new, state, transitions=transitions):
            await self._emit(ref, event, spend)
        generation = known.generation  # a watch may raise it while the patch is under way
        status = status_of(state, generation=generation, previous=known.conditions, now=self._wall())
        spend()
        answer = await self._api.patch_status(gpunodes.path_of(state.name), status_patch(status))
        self._on_write("status")
        self._told.settled(state.name)
        if answer["metadata"]["uid"] != known.uid:
            # A namesake made since: the status is true of it, too, but its owner and labels are its own.
            known = gpunodes.read(answer, mirror=self._mirror, critical_xids=critical_xids)[0]
        return msgspec.structs.replace(
            known,
            resource_version=_resource_version(answer, known),
            observed_generation=generation,
            meaning=new,
            transitions=gpunodes.transitions(status),
        )

    async def look(self, name: str, *, critical_xids: Collection[int]) -> Stored:
        """What is stored now.

        Raises:
            ApiError: refused; not found.
            ApiUnavailable: no answer.
        """
        body = await self._api.get(gpunodes.path_of(name))
        return gpunodes.read(body, mirror=self._mirror, critical_xids=critical_xids)[0]

    async def _create(self, state: NodeState, spend: Spend, critical_xids: Collection[int]) -> Stored:
        body = gpunode(state.name, node_uid=state.node_uid, labels=self._labels(state))
        spend()
        try:
            answer = await self._api.create(gpunodes.COLLECTION, body)
            self._on_write("create")
        except ApiError as error:
            if not error.already_exists:
                raise
            # Made by people, or by a process before this one.
            answer = await self._api.get(gpunodes.path_of(state.name))
        return gpunodes.read(answer, mirror=self._mirror, critical_xids=critical_xids)[0]

    async def _adopt(self, state: NodeState, known: Stored, spend: Spend) -> Stored:
        """Give it its owner and labels. Metadata is shared with people, hence the precondition."""
        path = gpunodes.path_of(state.name)
        stored = await self._api.get(path)
        labels = self._labels(state)
        body = metadata_patch(stored, node_uid=state.node_uid, labels=labels, mirror=self._mirror)
        spend()
        answer = await self._api.patch(path, body, resource_version=stored["metadata"]["resourceVersion"])
        self._on_write("metadata")
        return msgspec.structs.replace(
            known,
            uid=answer["metadata"]["uid"],
            resource_version=_resource_version(answer, known),
            owner_uid=state.node_uid,
            labels=labels,
        )

    async def _emit(self, ref: ObjectRef, event: EventSpec, spend: Spend) -> None:
        spend()
        if await self._told.emit(self._api, ref, event, now=self._wall()):
            self._on_write("event")


def _resource_version(answer: Mapping[str, Any], known: Stored) -> str:
    return str((answer.get("metadata") or {}).get("resourceVersion") or known.resource_version)

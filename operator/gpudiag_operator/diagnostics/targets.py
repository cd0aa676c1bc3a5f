"""Which nodes a diagnostic asks about, and which diagnostics a node's change concerns.

A node changes far more often than a diagnostic, so diagnostics are grouped by what they select: a hundred of them on
one pool cost one match.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gpudiag_operator.assess.narrow import holds, narrowed
from gpudiag_operator.diagnostics.registry import Diagnostic, Key
from gpudiag_operator.domain import NodeState, NodeStore
from gpudiag_operator.kube.selectors import EVERYTHING, Selector, from_object

_Pod = tuple[str, str]
"""Namespace and name."""


class Scope(msgspec.Struct, frozen=True):
    """A target, read: nodes that a selector matches, or named ones."""

    selector: Selector = EVERYTHING
    names: frozenset[str] | None = None
    """Set: these, and the selector is not looked at."""
    pod: tuple[str, str] | None = None
    """Namespace and name of a Pod. Set: the nodes whose GPUs it holds, and of them its GPUs alone."""


def scope_of(diagnostic: Diagnostic) -> Scope:
    """Read a diagnostic's target; none means every GPU node.

    Raises:
        SelectorError: the selector means nothing.
    """
    target = diagnostic.spec.target
    if target is None:
        return Scope()
    if target.node_names is not None:
        return Scope(names=frozenset(target.node_names))
    if target.pod_ref is not None:
        return Scope(pod=(diagnostic.key.namespace, target.pod_ref.name))
    if target.node_selector is not None:
        return Scope(selector=from_object(target.node_selector.model_dump(by_alias=True, exclude_none=True)))
    return Scope()


class TargetIndex:
    """Diagnostics by scope, over the nodes of a store."""

    def __init__(self, store: NodeStore) -> None:
        self._store = store
        self._scopes: dict[Key, Scope] = {}
        self._by_selector: defaultdict[Selector, set[Key]] = defaultdict(set)
        self._by_name: defaultdict[str, set[Key]] = defaultdict(set)
        self._by_pod: defaultdict[_Pod, set[Key]] = defaultdict(set)
        self._labels: dict[str, Mapping[str, str]] = {}
        self._pods: dict[str, frozenset[_Pod]] = {}
        """Pods with a diagnostic, by the node whose GPUs they held when it changed last."""

    def assign(self, key: Key, scope: Scope) -> None:
        """A diagnostic asks about these nodes from now on."""
        self.remove(key)
        self._scopes[key] = scope
        for group, member in self._places(scope):
            group[member].add(key)

    def remove(self, key: Key) -> None:
        """A diagnostic asks about nothing any more."""
        scope = self._scopes.pop(key, None)
        if scope is None:
            return
        for group, member in self._places(scope):
            group[member].discard(key)
            if not group[member]:
                del group[member]

    def _places(self, scope: Scope) -> Iterator[tuple[defaultdict[Any, set[Key]], Any]]:
        """Where a scope is filed."""
        if scope.pod is not None:
            yield self._by_pod, scope.pod
        elif scope.names is None:
            yield self._by_selector, scope.selector
        else:
            for name in scope.names:
                yield self._by_name, name

    def concerned(self, node: str) -> Collection[Key]:
        """Diagnostics that a change of this node concerns: those it belongs to now, or belonged to before."""
        before = self._labels.pop(node, None)
        state = self._store.get(node)
        if state is not None:
            self._labels[node] = state.labels
        found = set(self._by_name.get(node, ()))
        for selector, keys in self._by_selector.items():
            now = state is not None and selector.matches(state.labels)
            if now or (before is not None and selector.matches(before)):
                found |= keys
        return found | self._concerned_pods(node, state)

    def _concerned_pods(self, node: str, state: NodeState | None) -> set[Key]:
        """Diagnostics of Pods that hold the node's GPUs, or held them before."""
        before = self._pods.pop(node, frozenset())
        if not self._by_pod:
            return set()
        held = state.allocations if state is not None else ()
        now = frozenset(pod for one in held if (pod := (one.namespace, one.pod)) in self._by_pod)
        if now:
            self._pods[node] = now
        return {key for pod in now | before for key in self._by_pod.get(pod, ())}

    def narrowed(self, key: Key, states: Sequence[NodeState]) -> list[NodeState]:
        """Nodes of a diagnostic, as read now, with what its target leaves of them."""
        pod = self._scopes[key].pod
        return list(states) if pod is None else [narrowed(state, *pod) for state in states]

    def unwritten(self, key: Key, labels: Mapping[str, Mapping[str, str]]) -> set[str]:
        """Which of these nodes, given as labels by name, a diagnostic asks about."""
        scope = self._scopes[key]
        if scope.pod is not None:
            return set()
        if scope.names is not None:
            return {name for name in labels if name in scope.names}
        return {name for name, its in labels.items() if scope.selector.matches(its)}

    def states(self, key: Key) -> tuple[list[NodeState], list[str]]:
        """The nodes of a diagnostic, narrowed to its Pod's GPUs, and the names it gives that are no GPU nodes."""
        scope = self._scopes[key]
        if scope.pod is not None:
            return self.narrowed(key, [state for state in self._store.all() if holds(state, *scope.pod)]), []
        if scope.names is None:
            return [state for state in self._store.all() if scope.selector.matches(state.labels)], []
        found = {name: self._store.get(name) for name in sorted(scope.names)}
        return (
            [state for state in found.values() if state is not None],
            [name for name, state in found.items() if state is None],
        )

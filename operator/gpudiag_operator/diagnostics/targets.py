"""Which nodes a diagnostic asks about, and which diagnostics a node's change concerns.

A node changes far more often than a diagnostic, so diagnostics are grouped by what they select: a hundred of them on
one pool cost one match.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping

import msgspec

from gpudiag_api.kinds.gpudiagnostic import Target
from gpudiag_operator.diagnostics.registry import Key
from gpudiag_operator.domain import NodeState, NodeStore
from gpudiag_operator.kube.selectors import EVERYTHING, Selector, from_object


class Scope(msgspec.Struct, frozen=True):
    """A target, read: nodes that a selector matches, or named ones."""

    selector: Selector = EVERYTHING
    names: frozenset[str] | None = None
    """Set: these, and the selector is not looked at."""


def scope_of(target: Target | None) -> Scope:
    """Read a diagnostic's target; none means every GPU node.

    Raises:
        SelectorError: the selector means nothing.
    """
    if target is None:
        return Scope()
    if target.node_names is not None:
        return Scope(names=frozenset(target.node_names))
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
        self._labels: dict[str, Mapping[str, str]] = {}

    def set(self, key: Key, scope: Scope) -> None:
        """A diagnostic asks about these nodes from now on."""
        self.remove(key)
        self._scopes[key] = scope
        if scope.names is None:
            self._by_selector[scope.selector].add(key)
        for name in scope.names or ():
            self._by_name[name].add(key)

    def remove(self, key: Key) -> None:
        """A diagnostic asks about nothing any more."""
        scope = self._scopes.pop(key, None)
        if scope is None:
            return
        if scope.names is None:
            self._by_selector[scope.selector].discard(key)
            if not self._by_selector[scope.selector]:
                del self._by_selector[scope.selector]
        for name in scope.names or ():
            self._by_name[name].discard(key)
            if not self._by_name[name]:
                del self._by_name[name]

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
        return found

    def states(self, key: Key) -> tuple[list[NodeState], list[str]]:
        """The nodes of a diagnostic, and the names it gives that are no GPU nodes."""
        scope = self._scopes[key]
        if scope.names is None:
            return [state for state in self._store.all() if scope.selector.matches(state.labels)], []
        found = {name: self._store.get(name) for name in sorted(scope.names)}
        return (
            [state for state in found.values() if state is not None],
            [name for name, state in found.items() if state is None],
        )

"""Whose a new Lease is: the account in the token that a kubelet mounts, if it can own it at all."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_operator.leadership.owner import own_account

CLAIMS = {
    "iss": "https://kubernetes.default.svc",
    "kubernetes.io": {
        "namespace": "gpudiag-system",
        "pod": {"name": "gpudiag-operator-x", "uid": "2"},
        "serviceaccount": {"name": "gpudiag-operator", "uid": "1"},
    },
}


def token(path: Path, claims: Any) -> Path:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    path.write_text(f"e30.{payload}.c2ln", encoding="ascii")
    return path


def test_a_lease_goes_with_the_operators_account(tmp_path: Path) -> None:
    expected = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "gpudiag-operator", "uid": "1"}
    assert own_account("gpudiag-system", token=token(tmp_path / "token", CLAIMS)) == expected


def test_an_account_of_another_namespace_owns_nothing_here(tmp_path: Path) -> None:
    # The garbage collector would delete such a Lease at once.
    assert own_account("other", token=token(tmp_path / "token", CLAIMS)) is None


def test_outside_a_cluster_there_is_no_account(tmp_path: Path) -> None:
    assert own_account("gpudiag-system", token=tmp_path / "none") is None


@pytest.mark.parametrize("claims", [{}, [], {"kubernetes.io": {}}, {"kubernetes.io": {"namespace": "gpudiag-system"}}])
def test_claims_of_another_shape_are_no_account(tmp_path: Path, claims: Any) -> None:
    assert own_account("gpudiag-system", token=token(tmp_path / "token", claims)) is None


@given(content=st.binary(max_size=200))
def test_whatever_is_in_the_file_nothing_fails(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "token-of-anything"
    path.write_bytes(content)
    assert own_account("gpudiag-system", token=path) is None

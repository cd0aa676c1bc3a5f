"""What the images hold, read from what builds them; tests/e2e runs them."""

import re
from pathlib import Path

import pytest
from tools import images

ROOT = Path(__file__).resolve().parents[3]


def packages(part: str) -> set[str]:
    """Names of everything that a part's hashed requirements install."""
    text = (ROOT / "requirements" / f"{part}.txt").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z0-9][a-z0-9._-]*)(?:\[.*\])?==", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("part", "without"),
    [
        ("agent", {"kopf", "kubernetes", "opentelemetry-api", "protobuf", "pydantic", "pip", "setuptools"}),
        ("mcp", {"kopf", "pip", "setuptools"}),
        ("operator", {"pip", "setuptools"}),
    ],
)
def test_an_image_installs_what_its_part_needs_and_no_more(part: str, without: set[str]) -> None:
    assert packages(part) & without == set()
    assert {"agent": "msgspec", "operator": "kopf", "mcp": "mcp"}[part] in packages(part)


@pytest.mark.parametrize("file", ["Dockerfile.agent", "Dockerfile.operator"])
def test_no_installer_gets_into_an_image(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert "venv --without-pip /venv" in text
    assert re.search(r"rm -rf .*/bin/pip\*", text)
    installs = re.findall(r"pip .*install .*", text)
    assert installs
    assert all("--require-hashes" in line for line in installs)


def test_operator_and_facade_are_not_root() -> None:
    text = (ROOT / "Dockerfile.operator").read_text(encoding="utf-8")
    assert re.findall(r"^USER (.*)", text, re.MULTILINE) == ["65532:65532"]
    assert len(re.findall(r"^FROM runtime AS", text, re.MULTILINE)) == 2


def test_the_name_of_a_user_without_a_passwd_entry_is_given() -> None:
    # kopf called getpass.getuser(), which raises for a bare number: the operator of a real cluster ended at once. It is
    # told now who it is (tests/cluster/access/test_user.py); another library may ask as well.
    assert re.search(r"^ENV .*\bUSER=\S+", (ROOT / "Dockerfile.operator").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("engine", "verb"), [("docker", "build"), ("podman", "build"), ("buildah", "bud")])
def test_every_engine_builds_the_three_images(engine: str, verb: str) -> None:
    commands = images.commands(engine, base_image="registry.example/python:3.11", revision="abc")
    assert [command[:2] for command in commands] == [[engine, verb]] * 3
    assert all("--build-arg=BASE_IMAGE=registry.example/python:3.11" in command for command in commands)
    tags = [argument for command in commands for argument in command if argument.startswith("--tag=")]
    version = images.version()
    assert tags == [f"--tag=gpudiag-{name}:{version}" for name in ("agent", "operator", "mcp")]

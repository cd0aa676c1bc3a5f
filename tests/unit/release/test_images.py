"""What the images hold, read from what builds them; tests/e2e runs them."""

import configparser
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


def test_a_mirror_and_its_authority_are_told_to_the_build_alone(tmp_path: Path) -> None:
    mirror, ca = tmp_path / "mine.conf", tmp_path / "ca.pem"
    mirror.write_text("[global]\nindex-url = https://user:secret@mirror.example/simple\n", encoding="utf-8")
    ca.write_text("certificate", encoding="utf-8")
    arguments = images.secrets(tmp_path / "pip.conf", pip_config=mirror, ca=ca)
    assert arguments == [f"--secret=id=pip,src={tmp_path / 'pip.conf'}", f"--secret=id=ca,src={ca}"]
    told = configparser.RawConfigParser()
    told.read(tmp_path / "pip.conf")
    assert dict(told["global"]) == {
        "index-url": "https://user:secret@mirror.example/simple",
        "cert": "/run/secrets/ca",
    }
    assert (tmp_path / "pip.conf").stat().st_mode & 0o077 == 0
    for command in images.commands("docker", base_image=None, revision="abc", secrets=arguments):
        assert set(arguments) <= set(command)
        assert not any("user:secret" in argument for argument in command)
    for file in ("Dockerfile.agent", "Dockerfile.operator"):
        installs = re.findall(r"^RUN (.*?)\\\n +/pip/bin/pip", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
        assert installs
        assert set(installs) == {"--mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca "}


def test_without_a_mirror_the_build_is_told_nothing(tmp_path: Path) -> None:
    assert images.secrets(tmp_path / "pip.conf", pip_config=None, ca=None) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "--pip-config: there is no file"), ("index-url = x", "--pip-config: pip could not read")],
)
def test_settings_that_pip_could_not_read_are_refused(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "mine.conf").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        images.secrets(tmp_path / "pip.conf", pip_config=tmp_path / "mine.conf", ca=None)

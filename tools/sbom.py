"""The bill of materials of an image: CycloneDX 1.6, JSON, of what its archive holds.

The Python packages in it must be those of the hashed requirements. The same image gives the same bytes.
"""

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from tools.image_contents import Image, Package

ROOT = Path(__file__).resolve().parent.parent
_PINNED = re.compile(
    r"^(?P<name>[a-z0-9][a-z0-9._-]*)(\[.*\])?==(?P<version>\S+)(?P<hashes>( \\\n +--hash=\S+)+)", re.MULTILINE
)
_NAMESPACE = uuid.UUID("6f4c3f0e-5d5f-5a52-9d5a-0d1f3c1b7a10")
"""Serial numbers are made in it, from the image's ID."""


def requirements(part: str) -> dict[str, tuple[str, list[str]]]:
    """Version and SHA-256 hashes by name, of ``requirements/PART.txt``. Each hash is that of one platform's file."""
    text = (ROOT / "requirements" / f"{part}.txt").read_text(encoding="utf-8")
    return {
        found["name"]: (found["version"], re.findall(r"--hash=sha256:([0-9a-f]{64})", found["hashes"]))
        for found in _PINNED.finditer(text)
    }


def disagreement(image: Image, pinned: Mapping[str, tuple[str, list[str]]]) -> str | None:
    """What the image has and the requirements have not, or the other way round, in a sentence; None: they agree."""
    has, should = set(image.python), {Package(name, version) for name, (version, _) in pinned.items()}
    more, less = sorted(has - should), sorted(should - has)
    if not more and not less:
        return None
    said = [
        f"{what} {', '.join(f'{one.name} {one.version}' for one in some)}"
        for what, some in (("it has", more), ("it lacks", less))
        if some
    ]
    return f"the image is not what its requirements say: {'; '.join(said)}"


def document(image: Image, *, name: str, version: str, base: str, pinned: Mapping[str, tuple[str, list[str]]]) -> str:
    """The bill.

    Args:
        image: what it is of.
        name: of the image.
        version: of the image.
        base: the image that it was built upon, as the build was told.
        pinned: of :func:`requirements`.
    """
    subject = Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=version,
        bom_ref=name,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=image.digest)],
        properties=[Property(name="gpudiag:architecture", value=image.architecture)],
    )
    made = datetime.fromisoformat(image.created) if image.created else datetime.fromtimestamp(0, UTC)
    bom = Bom(
        serial_number=uuid.uuid5(_NAMESPACE, f"{name} {image.digest}"),
        metadata=BomMetaData(component=subject, timestamp=made),
    )
    underneath = Component(type=ComponentType.CONTAINER, name=base, bom_ref="base")
    system = _system(image)
    python = [_python(one, pinned[one.name][1] if one.name in pinned else []) for one in image.python]
    debian = [_debian(one, image.system) for one in image.debian]
    bom.components.update([underneath, system, *python, *debian])
    bom.register_dependency(subject, [underneath, *python])
    bom.register_dependency(underneath, [system, *debian])
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _system(image: Image) -> Component:
    said = image.system
    name, version = said.get("ID", "unknown"), said.get("VERSION_ID")
    return Component(type=ComponentType.OPERATING_SYSTEM, name=name, version=version, bom_ref="system")


def _python(one: Package, hashes: list[str]) -> Component:
    url = PackageURL("pypi", name=one.name, version=one.version)
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(url.to_string()),
        comment="one of these files, by platform",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=value) for value in hashes],
    )
    return Component(
        type=ComponentType.LIBRARY,
        name=one.name,
        version=one.version,
        purl=url,
        bom_ref=url.to_string(),
        external_references=[files] if hashes else [],
    )


def _debian(one: Package, system: Mapping[str, str]) -> Component:
    release = f"{system.get('ID', 'debian')}-{system.get('VERSION_ID', '')}".rstrip("-")
    about = {"arch": one.architecture, "distro": release}
    url = PackageURL("deb", system.get("ID", "debian"), one.name, one.version, about)
    return Component(type=ComponentType.LIBRARY, name=one.name, version=one.version, purl=url, bom_ref=url.to_string())

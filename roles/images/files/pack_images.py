"""Pack the build contexts of the images and name each image for everything it is made of.

Usage: pack_images.py FOLDER < request.json        (images, names, base, certificates; see `main`)

The rule: the same files give the same bytes and the same tag, on any machine and at any time. Dates, owners and
modes beyond "may be executed" are left out of the tar.
"""

import hashlib
import io
import json
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def members(context: Path, wheels: list[Path], certificates: list[Path]) -> Iterator[tuple[str, bytes, bool]]:
    """Give name, content and whether it may be executed of each file, in a fixed order, what is added last."""
    for path in sorted(context.rglob("*")):
        # Wheels that somebody put there to build by hand are old by now.
        if path.is_file() and not {"__pycache__", "wheels"} & set(path.relative_to(context).parts):
            yield path.relative_to(context).as_posix(), path.read_bytes(), bool(path.stat().st_mode & 0o100)
    for path in sorted(wheels):
        yield f"wheels/{path.name}", path.read_bytes(), False
    for path in sorted(certificates):
        yield f"ca-certificates/{path.stem}.crt", path.read_bytes(), False


def pack(context: Path, wheels: list[Path], certificates: list[Path]) -> bytes:
    """Make the tar of a build context."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content, executable in members(context, wheels, certificates):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o755 if executable else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def title(dockerfile: str, name: str) -> str:
    """Read what people call the image from its label org.opencontainers.image.title."""
    found = re.search(r'org\.opencontainers\.image\.title="([^"$]+)"', dockerfile)
    return found[1] if found else name


def main(folder: Path, request: dict[str, Any]) -> list[dict[str, str]]:
    """Write one tar for each image, named for its tag.

    The request has: images (folder of the contexts), names, base (what stands below the images, as text),
    wheels (paths of our own packages), certificates (paths).
    """
    folder.mkdir(parents=True, exist_ok=True)
    wheels = [Path(path) for path in request["wheels"]]
    certificates = [Path(path) for path in request["certificates"]]
    packed = []
    for name in request["names"]:
        context = Path(request["images"], name)
        content = pack(context, wheels, certificates)
        tag = hashlib.sha256(content + str(request["base"]).encode()).hexdigest()[:12]
        archive = folder / f"{name}-{tag}.tar"
        if not archive.exists():
            new = archive.with_suffix(".new")
            new.write_bytes(content)
            new.replace(archive)
        label = title((context / "Dockerfile").read_text(encoding="utf-8"), name)
        packed.append({"name": name, "title": label, "reference": f"labstead/{name}:{tag}", "archive": str(archive)})
    return packed


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), json.load(sys.stdin))))

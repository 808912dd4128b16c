"""The images of the sessions as folders, in which jobs run: Charliecloud and Apptainer need neither Docker nor root.

They stand in IMAGES_ROOT/images, which may be shared with the machines of a cluster, under the first twelve digits of
the image's id: the tree itself, its variables (`.env`, for in-image) and what is in it (`.json`, for people and Dask).

The one rule: a tree that bears an image's digits is whole. It is made beside and renamed, and what a run that was
killed has left is thrown away by the next one.
"""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from labstead import contract
from labstead.compute import files, runner
from labstead.compute.session import TLS_ERRORS, digest
from labstead.errors import BadInput, LabsteadError
from labstead.settings import Compute, Sessions

KEEP_DAYS = 14
"""How long an image is kept for jobs after it was last one of the sessions'; longer than most jobs wait and run."""

_LABEL = "org.labstead.flattening"
"""Label of the containers that are made to be read out; they never run."""
_NOBODY = 65534
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
_LOCK_SECONDS = 3600
_DOCKER_SECONDS = 120
_EXPORT_SECONDS = 3600
_LOOK_SECONDS = 300
_SPARE = 5, 4
"""Docker counts bytes, not blocks: 573 MB were taken by an image of 521 MB in 30,600 files (measured, ext4)."""

#: What Docker's export makes of files that it binds, and what a runtime binds on these.
_PLACES = ("/dev", "/proc", "/sys", "/tmp", "/var/tmp")  # noqa: S108 - mount points
_FILE_PLACES = (
    *("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf", contract.CA_BUNDLE),
    str(TLS_ERRORS),
)

_PROBE = """
import json, platform
from importlib import metadata
found = {"python": platform.python_version()}
for name in ("dask", "distributed"):
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        found[name] = None
print(json.dumps(found))
"""
_NO_COMMAND = 127
"""Exit code of a shell, and of Docker, where there is no such command: exit code 127, POSIX.1 sh, 2.8.2."""


class ImageError(LabsteadError):
    """An image cannot be made ready for jobs: why, and what to do."""


class Flattened(BaseModel):
    """An image that jobs can run in; IMAGES_ROOT/images/DIGEST.json."""

    model_config = ConfigDict(frozen=True)

    reference: str
    """What Docker knows it by, as in sessions.yml."""
    digest: str
    """First twelve digits of its id."""
    python: str | None
    """Version of its python3; None: it has none."""
    dask: str | None
    """Version of its Dask; None: it has none."""
    distributed: str | None
    """Version of its distributed; None: it has none."""


def _docker(*words: str, lock: int | None = None) -> str:
    try:
        done = subprocess.run(
            ["docker", *words],
            capture_output=True,
            text=True,
            timeout=_DOCKER_SECONDS,
            check=False,
            cwd="/",
            pass_fds=() if lock is None else (lock,),
        )
    except OSError as error:
        raise ImageError(f"docker: {error.strerror}; is Docker installed?") from None
    except subprocess.TimeoutExpired:
        raise ImageError(f"docker {words[0]}: no answer in {_DOCKER_SECONDS} s; see journalctl -u docker") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise ImageError(f"docker {words[0]}: {said or f'exit code {done.returncode}'}")
    return done.stdout.strip()


@contextmanager
def _alone(root: Path) -> Iterator[int]:
    """Have the images to oneself; give the lock, which children may hold on to.

    :raises ImageError: when another one works on them for too long, and for whatever the disk refuses
    """
    umask = os.umask(0o022)  # everybody reads what is made here, whoever started this
    descriptor = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Not in the folder that sessions see: whoever can open a file can lock it.
        descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise ImageError(
                        f"{root}: another labstead compute has worked there for {_LOCK_SECONDS // 60} minutes; "
                        "look for docker export"
                    ) from None
                time.sleep(0.2)
        yield descriptor
    except OSError as error:
        raise ImageError(f"{error.filename or root}: {error.strerror}") from None
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"{root}: {error.cmd[0]} has not ended in {error.timeout:.0f} s") from None
    finally:
        if descriptor is not None:
            os.close(descriptor)
        os.umask(umask)


def _read(folder: Path) -> list[Flattened]:
    images = []
    for file in sorted(folder.glob("*.json")):
        try:
            image = Flattened.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            continue  # it is made anew
        if image.digest == file.stem and (folder / image.digest).is_dir():
            images.append(image)
    return images


def found(sessions: Sessions) -> list[Flattened]:
    """Give the images that jobs can run in, by their references.

    :raises BadInput: where sessions have no Slurm
    """
    return sorted(_read(runner.images_folder(sessions)), key=lambda image: (image.reference, image.digest))


def kept_until(image: Flattened, sessions: Sessions) -> date | None:
    """Say from which day on an image may be removed; None: it is one of the sessions'."""
    if image.reference in _references(sessions):
        return None
    used = (runner.images_folder(sessions) / f"{image.digest}.json").stat().st_mtime
    return datetime.fromtimestamp(used + KEEP_DAYS * 86400, tz=UTC).date()


def _references(sessions: Sessions) -> set[str]:
    return {image.reference for image in sessions.images}


def ensure(compute: Compute, sessions: Sessions) -> list[Path]:
    """Make the images of the sessions ready for jobs, and what runs jobs in them.

    :return: what has changed: programs, certificates, trees
    :raises BadInput: when an image is not here, or there is no room for it
    :raises ImageError: when an image cannot be made a folder, or jobs cannot run in it
    """
    root, folder = runner.compute_of(sessions).images_root, runner.images_folder(sessions)
    with _alone(root) as lock:
        folder.mkdir(exist_ok=True)
        changed = files.ensure(compute, sessions)
        _clear(folder, lock)
        for reference in sorted(_references(sessions)):
            changed += _ensure_image(reference, compute, sessions, lock)
    return changed


def _clear(folder: Path, lock: int) -> None:
    """Throw away what runs that were killed have left."""
    for path in [*folder.glob(".new-*"), *folder.glob(".old-*")]:
        shutil.rmtree(path)
    if left := _docker("ps", "--all", "--quiet", "--no-trunc", f"--filter=label={_LABEL}", lock=lock).split():
        _docker("rm", "--volumes", *left, lock=lock)


def _inspect(reference: str) -> dict[str, Any]:
    try:
        return dict(json.loads(_docker("image", "inspect", "--format={{json .}}", reference)))
    except ImageError as error:
        if "no such image" in str(error).lower():
            raise BadInput(f"labstead: image {reference} is not on this machine; site.yml builds it") from None
        raise


def _ensure_image(reference: str, compute: Compute, sessions: Sessions, lock: int) -> list[Path]:
    about = _inspect(reference)
    name, folder = digest(about["Id"]), runner.images_folder(sessions)
    tree, changed = folder / name, []
    if not tree.is_dir():
        _flatten(reference, tree, int(about["Size"]), sessions, lock)
        changed.append(tree)
    make_places(tree, sessions)
    files.put(folder / f"{name}.env", _variables(reference, about), 0o644)
    file = folder / f"{name}.json"
    known = next((image for image in _read(folder) if image.digest == name), None)
    if known is None or changed:
        known = Flattened(reference=reference, digest=name, **_versions(reference, name, compute, sessions))
    files.put(file, known.model_copy(update={"reference": reference}).model_dump_json() + "\n", 0o644)
    os.utime(file)
    return changed


def _variables(reference: str, about: dict[str, Any]) -> str:
    """Write the variables that jobs have of an image."""
    spec = f"{reference}@{about['Id']}"
    pairs = [pair.split("=", 1) for pair in (about.get("Config") or {}).get("Env") or () if "=" in pair]
    return runner.defaults(dict(pairs) | {"JUPYTER_IMAGE": spec, "JUPYTER_IMAGE_SPEC": spec})


def _words(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _flatten(reference: str, tree: Path, size: int, sessions: Sessions, lock: int) -> None:
    """Make the tree of an image.

    :param size: of the image, in bytes
    """
    folder = tree.parent
    needed, free = size * _SPARE[0] // _SPARE[1], shutil.disk_usage(folder).free
    if needed > free:
        raise BadInput(
            f"labstead: {folder}: no room for image {reference}: it needs {_words(needed)}, {_words(free)} are free; "
            "make room, or set slurm_images_root to a folder of another disk"
        )
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        ident = _docker(
            "create", "--pull=never", "--network=none", f"--label={_LABEL}=1", reference, "/bin/true", lock=lock
        )
        try:
            _unpack(ident, new, lock)
        finally:
            _docker("rm", "--volumes", ident, lock=lock)
        _plain_files(new)
        make_places(new, sessions)
        new.chmod(0o755)
        # The whole of it is on the disk before it bears its name.
        subprocess.run(["sync", "--file-system", str(new)], check=True, timeout=_EXPORT_SECONDS)
        new.rename(tree)
    except subprocess.CalledProcessError as error:
        raise ImageError(f"{folder}: image {reference} was not unpacked: {error}") from None
    finally:
        if new.is_dir():
            shutil.rmtree(new, ignore_errors=True)


def _unpack(ident: str, folder: Path, lock: int) -> None:
    """Unpack what a container holds, everything as root's; no program gives rights to who runs it.

    Both processes hold the lock: should this one be killed, the next run waits until they have ended.
    """
    with tempfile.TemporaryFile() as said:
        export = subprocess.Popen(
            ["docker", "export", ident], stdout=subprocess.PIPE, stderr=said, cwd="/", pass_fds=(lock,)
        )
        try:
            unpacked = subprocess.run(
                # Dates stay, so that bytecode is still valid; setuid bits, owners, attributes and capabilities do not.
                [
                    "tar",
                    "--extract",
                    "--file=-",
                    "--directory",
                    str(folder),
                    "--no-same-owner",
                    "--no-same-permissions",
                ],
                stdin=export.stdout,
                stdout=subprocess.DEVNULL,
                stderr=said,
                timeout=_EXPORT_SECONDS,
                check=False,
                umask=0o022,
                pass_fds=(lock,),
            )
        finally:
            if export.stdout is not None:
                export.stdout.close()  # docker ends when nobody reads
            exported = export.wait(_DOCKER_SECONDS)
        if exported or unpacked.returncode:
            said.seek(0)
            lines = said.read(4096).decode(errors="replace").split("\n")
            raise ImageError(f"{folder.parent}: an image was not unpacked: {lines[0] or f'exit code {exported}'}")


def _plain_files(folder: Path) -> None:
    """Take away devices, pipes and sockets."""
    kinds = ["-type", "b", "-o", "-type", "c", "-o", "-type", "p", "-o", "-type", "s"]
    subprocess.run(["find", str(folder), "-xdev", "(", *kinds, ")", "-delete"], check=True, timeout=_EXPORT_SECONDS)


def make_places(tree: Path, sessions: Sessions) -> None:
    """Make what a runtime mounts on; a job cannot make it, as it cannot write in an image.

    :raises ImageError: where the image has a link on the way to one
    """
    for name in (*_PLACES, *map(str, runner.roots(sessions))):
        _place(tree, name).mkdir(mode=0o755, exist_ok=True)
    for name in _FILE_PLACES:
        _place(tree, name).touch(mode=0o644)


def _place(tree: Path, name: str) -> Path:
    """Make the folders above a mount point, and take away a link or a file in its place.

    Links of an image lead out of its tree, for who is not in it.
    """
    path = tree
    *above, last = Path(name.lstrip("/")).parts
    for part in above:
        path /= part
        if path.is_symlink():
            raise ImageError(f"/{path.relative_to(tree)} is a link in the image, and {name} is to be there")
        path.mkdir(mode=0o755, exist_ok=True)
    path /= last
    if path.is_symlink():
        path.unlink()
    return path


def _versions(reference: str, digest: str, compute: Compute, sessions: Sessions) -> dict[str, str | None]:
    """Ask an image for its versions, as a job that is nobody's: so it is known, too, that jobs can run here.

    :raises ImageError: when they cannot
    """
    in_image = runner.compute_of(sessions).images_root / "bin" / "in-image"
    if compute.mode == "embedded" or runner.program(compute):
        command = [str(in_image), digest]
    else:  # jobs run elsewhere
        options = ("--rm", "--pull=never", "--network=none", "--log-driver=none", "--read-only", "--cap-drop=ALL")
        command = ["docker", "run", *options, f"--user={_NOBODY}:{_NOBODY}", "--entrypoint=/usr/bin/env", reference]
    as_nobody: dict[str, Any] = {"user": _NOBODY, "group": _NOBODY, "extra_groups": ()}
    try:
        done = subprocess.run(
            [*command, "python3", "-I", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_LOOK_SECONDS,
            check=False,
            cwd="/",
            env=_ENVIRONMENT,
            **(as_nobody if command[0] != "docker" else {}),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(f"jobs cannot run in image {reference}: {error}") from None
    if done.returncode == _NO_COMMAND:
        return {"python": None, "dask": None, "distributed": None}
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise ImageError(
            f"jobs cannot run in image {reference} on this machine: {said} "
            "(everybody must be able to make user namespaces, see unshare(1), and to read the folder)"
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def prune(sessions: Sessions, now: float | None = None) -> list[Path]:
    """Remove the images that have not been any session's for `KEEP_DAYS`.

    The date of an image's `.json` is when it last was: of sessions that may start, or of one that runs.

    :param now: seconds since 1970
    :return: the trees that are gone
    """
    root, folder = runner.compute_of(sessions).images_root, runner.images_folder(sessions)
    if not folder.is_dir():
        return []
    now = time.time() if now is None else now
    gone = []
    with _alone(root) as lock:
        _clear(folder, lock)
        wanted = _references(sessions) | _running(lock)
        for image in _read(folder):
            file = folder / f"{image.digest}.json"
            if image.reference in wanted or image.digest in wanted:
                os.utime(file, (now, now))
            elif now - file.stat().st_mtime > KEEP_DAYS * 86400:
                _remove(folder, image.digest)
                gone.append(folder / image.digest)
    return gone


def _running(lock: int) -> set[str]:
    """Give the images of running sessions: references, or digits where the reference means another one by now."""
    words = ("ps", f"--filter=label={contract.LABEL_USER}", "--no-trunc", "--format={{.Image}}")
    return {name for line in _docker(*words, lock=lock).split() for name in (line, digest(line))}


def _remove(folder: Path, digest: str) -> None:
    """Remove an image: no job finds it from the first step on."""
    (folder / f"{digest}.env").unlink(missing_ok=True)
    old = folder / f".old-{digest}"
    (folder / digest).rename(old)
    (folder / f"{digest}.json").unlink()
    shutil.rmtree(old)

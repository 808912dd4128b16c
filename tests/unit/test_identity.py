"""Which folders come into a session: those that were made for the person and their groups, and no others."""

import grp
import os
from pathlib import Path

import pytest

from labstead import identity
from labstead.identity import Identity

PERSON = Identity.model_validate(
    {"name": "anna", "uid": 20001, "gid": 20001, "groups": (20001, 30000), "home": "/home/anna", "shell": "/bin/bash"}
)
NAMES = {20001: "anna", 30000: "ocean", 30001: "ice"}


@pytest.fixture(autouse=True)
def groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def getgrgid(gid: int) -> grp.struct_group:
        return grp.struct_group((NAMES[gid], "x", gid, []))

    monkeypatch.setattr(identity.grp, "getgrgid", getgrgid)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("only root can make a group's folder")
    return tmp_path


def make(path: Path, uid: int = 0, gid: int = 30000) -> Path:
    path.mkdir()
    os.chown(path, uid, gid)
    return path


def test_the_folders_of_ones_groups_are_found(root: Path) -> None:
    ocean, ice = make(root / "ocean"), make(root / "ice", gid=30001)
    assert identity.with_folders(PERSON, root).folders == (ocean,)
    both = PERSON.model_copy(update={"groups": (20001, 30000, 30001)})
    assert identity.with_folders(both, root).folders == (ice, ocean)


def test_what_only_looks_like_a_groups_folder_is_none(root: Path) -> None:
    ocean = make(root / "ocean", uid=20001)
    assert identity.with_folders(PERSON, root).folders == ()
    os.chown(ocean, 0, 20001)
    assert identity.with_folders(PERSON, root).folders == ()
    ocean.rmdir()
    ocean.symlink_to(make(root / "elsewhere"))
    assert identity.with_folders(PERSON, root).folders == ()
    ocean.unlink()
    ocean.touch()
    os.chown(ocean, 0, 30000)
    assert identity.with_folders(PERSON, root).folders == ()


def test_without_a_folder_or_a_root_there_is_none(tmp_path: Path) -> None:
    assert identity.with_folders(PERSON, tmp_path).folders == ()
    assert identity.with_folders(PERSON, tmp_path / "none").folders == ()


@pytest.mark.parametrize("name", ["..", ".", "../etc", "a/b", ".removed-30000"])
def test_a_group_with_an_odd_name_has_no_folder(monkeypatch: pytest.MonkeyPatch, root: Path, name: str) -> None:
    monkeypatch.setitem(NAMES, 30000, name)
    (root / "sub").mkdir()
    os.chown(root / "sub", 0, 30000)
    if name.startswith(".removed"):
        make(root / name)
    assert identity.with_folders(PERSON, root / "sub").folders == ()


# --- scratch


def test_ones_own_scratch_is_found(root: Path) -> None:
    scratch = make(root / "anna", uid=20001, gid=20001)
    assert identity.with_folders(PERSON, root / "none", root).scratch == scratch
    assert identity.with_folders(PERSON, root / "none").scratch is None
    assert identity.with_folders(PERSON, root / "none", root / "none").scratch is None


def test_what_only_looks_like_ones_scratch_is_none(root: Path) -> None:
    bert = make(root / "bert", uid=20002, gid=20002)
    (root / "anna").symlink_to(bert)
    assert identity.with_folders(PERSON, root, root).scratch is None
    (root / "anna").unlink()
    make(root / "anna", uid=20002, gid=20001)
    assert identity.with_folders(PERSON, root, root).scratch is None
    (root / "anna").rmdir()
    (root / "anna").touch()
    os.chown(root / "anna", 20001, 20001)
    assert identity.with_folders(PERSON, root, root).scratch is None


def test_there_is_no_scratch_where_everybody_could_put_a_link(root: Path) -> None:
    scratch = make(root / "anna", uid=20001, gid=20001)
    for mode, found in ((0o1777, None), (0o775, None), (0o755, scratch)):
        root.chmod(mode)
        assert identity.with_folders(PERSON, root / "none", root).scratch == found

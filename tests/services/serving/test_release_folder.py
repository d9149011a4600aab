"""The release folder: named by its content, and refused when a byte, a file or a kind of file is off."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from services.serving.release import (
    CONTENT_FILES,
    MANIFEST,
    Release,
    ReleaseError,
    find_release,
    read_release,
)

Write = Callable[[Path], Release]


def test_the_same_content_is_the_same_release(write: Write, tmp_path: Path) -> None:
    """Writing the same content elsewhere gives the same id; writing it again gives back what stands there."""
    first, elsewhere = write(tmp_path / "a"), write(tmp_path / "b")
    assert first.id == elsewhere.id
    assert first.id.startswith("telemarketing-")
    assert len(first.id) == len("telemarketing-") + 12
    assert write(tmp_path / "a") == first
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [first.id]


def test_a_release_reads_back_as_written(write: Write, tmp_path: Path) -> None:
    """Reading gives id, provenance and digests back; the files are read-only and no others stand there."""
    release = read_release(write(tmp_path).folder)
    assert release.provenance["seed"] == 2
    assert release.created_at == 1_700_000_000.0
    assert {p.name for p in release.folder.iterdir()} == {MANIFEST, *CONTENT_FILES}
    assert {p.stat().st_mode & 0o222 for p in release.folder.iterdir()} == {0}


def test_a_release_is_found_by_its_id_alone(write: Write, tmp_path: Path) -> None:
    """An id finds its release; a path, a folder's other name or an id that another release stands under does not."""
    release = write(tmp_path / "releases")
    assert find_release(tmp_path / "releases", release.id) == release
    with pytest.raises(ReleaseError, match="a release id must be like"):
        find_release(tmp_path / "elsewhere", f"../releases/{release.id}")
    with pytest.raises(ReleaseError, match="a release id must be like"):
        find_release(tmp_path / "releases", str(release.folder))
    other = "telemarketing-000000000000"
    release.folder.rename(tmp_path / "releases" / other)
    with pytest.raises(ReleaseError, match=f"must hold release {other}: {release.id}"):
        find_release(tmp_path / "releases", other)


@pytest.mark.parametrize("name", CONTENT_FILES)
def test_one_changed_byte_is_refused(write: Write, tmp_path: Path, name: str) -> None:
    """A changed byte in any file is refused, and the file is named."""
    path = write(tmp_path).folder / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))
    with pytest.raises(ReleaseError, match=f"{name}: content must be sha256:"):
        read_release(path.parent)


@pytest.mark.parametrize("name", [MANIFEST, *CONTENT_FILES])
def test_a_missing_file_is_refused(write: Write, tmp_path: Path, name: str) -> None:
    """A release without one of its files is refused, and the file is named."""
    folder = write(tmp_path).folder
    (folder / name).unlink()
    with pytest.raises(ReleaseError, match=f"missing {name}"):
        read_release(folder)


@pytest.mark.parametrize("name", ["model.pkl", "weights.pt", "hook.py", ".hidden"])
def test_an_extra_file_is_refused(write: Write, tmp_path: Path, name: str) -> None:
    """Anything beside the nine files is refused, whatever it is."""
    folder = write(tmp_path).folder
    (folder / name).write_bytes(b"x")
    with pytest.raises(ReleaseError, match=f"found also {name}"):
        read_release(folder)


def test_a_link_is_refused(write: Write, tmp_path: Path) -> None:
    """A link in the place of a file is refused even when it leads to the right content."""
    folder = write(tmp_path / "releases").folder
    moved = (folder / "network.json").rename(tmp_path / "network.json")
    (folder / "network.json").symlink_to(moved)
    with pytest.raises(ReleaseError, match=r"network\.json: must be a plain file"):
        read_release(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("id", "telemarketing-000000000000"), ("service", "credit"), ("provenance", {}), ("seed", 3)],
)
def test_a_changed_manifest_is_refused(write: Write, tmp_path: Path, key: str, value: object) -> None:
    """A manifest whose id, service or provenance changed, or with a key too many, is refused."""
    path = write(tmp_path).folder / MANIFEST
    manifest = json.loads(path.read_text())
    manifest[key] = value
    path.chmod(0o644)
    path.write_text(json.dumps(manifest))
    with pytest.raises(ReleaseError, match=MANIFEST.replace(".", r"\.")):
        read_release(path.parent)


def test_an_oversized_file_is_refused(write: Write, tmp_path: Path) -> None:
    """A file larger than its limit is refused before it is read whole."""
    path = write(tmp_path).folder / "rollout.yaml"
    path.chmod(0o644)
    with path.open("wb") as file:
        file.truncate(9 * 2**20)
    with pytest.raises(ReleaseError, match=r"rollout\.yaml: must be <= 8388608 bytes"):
        read_release(path.parent)

"""Finds what fields can be fitted to: files of meshes, clouds and voxels, and procedural shapes."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from weightgen.errors import CorruptFileError, MissingDataError, WeightgenError
from weightgen.fields.clouds import Cloud, Voxels
from weightgen.fields.meshes import ENDINGS, Mesh, trimesh
from weightgen.fields.shapes import make_shapes
from weightgen.fields.signals import Signal

ARRAYS = (".npy", ".npz", ".xyz")
SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
"""Folders of these names say the split and not the class."""


@dataclass(frozen=True)
class Source:
    """One signal that can be read.

    Args:
        name: unlike that of any other source of the same call.
        label: its class, the name of its folder.
        split: `train`, `validation` or `test` if its place says so.
        facts: what else is known, as JSON scalars.
        read: gives the signal, or raises WeightgenError.
    """

    name: str
    label: str | None
    split: str | None
    read: Callable[[], Signal] = field(repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict)


def find_sources(paths: Sequence[Path | str], solid: bool) -> list[Source]:
    """All sources of files, folders and `procedural:COUNT[:SEED]`.

    A folder is searched for meshes (.obj, .off, .ply, .stl, .glb), clouds (`[n, 3]` in .npy, .npz, .xyz) and voxels
    (`[x, y, z]` of 0 and 1). Its subfolders are the classes; `train`, `validation` and `test` among them the splits. An
    .npz of many clouds holds `points` `[clouds, n, 3]`, `labels` and `classes`, or `train_points`, `test_points`, ….

    Args:
        solid: whether signed distances will be asked for.

    Raises:
        MissingDataError: if a path is not there, or nothing is found.
    """
    found: list[Source] = []
    for path in paths:
        if match := re.fullmatch(r"procedural:(\d+)(?::(\d+))?", str(path)):
            found += _procedural(int(match[1]), int(match[2] or 0))
            continue
        path = Path(path)
        if not path.exists():
            raise MissingDataError("nothing is there", where=path, expected="a file, a folder or procedural:COUNT")
        files = [path] if path.is_file() else sorted(_files(path))
        for file in files:
            found += _of_file(file, path if path.is_dir() else path.parent, solid)
    if not found:
        raise MissingDataError(
            "nothing that a field can be fitted to", where=", ".join(map(str, paths)),
            expected=f"files that end in {', '.join((*ENDINGS, *ARRAYS))}",
        )  # fmt: skip
    names: dict[str, int] = {}
    for source in found:
        names[source.name] = names.get(source.name, 0) + 1
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        raise WeightgenError(f"two sources are named '{twice}'", remedy="give the folder above them instead")
    return found


def _procedural(count: int, seed: int) -> list[Source]:
    shapes = make_shapes(count, seed)
    return [
        Source(
            f"procedural-{seed}-{index:05d}-{shape.name}", shape.name, None, lambda shape=shape: shape,
            {"shape_seed": shape.seed},
        )
        for index, shape in enumerate(shapes)
    ]  # fmt: skip


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.suffix.lower() in (*ENDINGS, *ARRAYS) and path.is_file() and not path.name.startswith("."):
            yield path


def _of_file(file: Path, root: Path, solid: bool) -> list[Source]:
    parts = file.relative_to(root).parts
    folders = [*([root.resolve().name] if len(parts) == 1 else []), *parts[:-1]]
    split = next((SPLITS[part.lower()] for part in reversed(folders) if part.lower() in SPLITS), None)
    label = next((part for part in reversed(folders) if part.lower() not in SPLITS), None)
    name = file.relative_to(root).with_suffix("").as_posix()
    if file.suffix.lower() == ".npz":
        many = _collection(file, name)
        if many is not None:
            return many
    return [Source(name, label, split, lambda: read_signal(file, solid), {"file": file.name})]


def _collection(file: Path, name: str) -> list[Source] | None:
    """The clouds of a file of many, None if it is no such file."""
    with _arrays(file) as arrays:
        prefixes = [key.removesuffix("points") for key in arrays if key.endswith("points") and arrays[key].ndim == 3]
        if not prefixes:
            return None
        found = []
        for prefix in prefixes:
            points = arrays[f"{prefix}points"]
            labels = arrays[f"{prefix}labels"] if f"{prefix}labels" in arrays else [None] * len(points)
            names = arrays.get("classes")
            for index, (cloud, label) in enumerate(zip(points, labels, strict=True)):
                word = None if label is None else str(label if names is None else names[int(label)])
                found.append(
                    Source(
                        f"{name}-{prefix}{index:05d}", word, SPLITS.get(prefix.rstrip("_")),
                        lambda cloud=cloud, where=f"{file}: {prefix}{index}": Cloud(cloud, where), {"file": file.name},
                    )
                )  # fmt: skip
        return found


def _arrays(file: Path) -> Any:
    try:
        return numpy.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CorruptFileError("an array that cannot be read", where=file, got=str(error)[:200]) from error


def read_signal(file: Path, solid: bool) -> Signal:
    """The signal of one file.

    Raises:
        CorruptFileError: if it cannot be read.
        WeightgenError: if it holds nothing a field can be fitted to, or a cloud where a solid is asked for.
    """
    if file.suffix.lower() in ENDINGS:
        bare = _bare_points(file)
        signal: Signal = Mesh.read(file, solid) if bare is None else Cloud(bare, str(file))
    else:
        array = _array(file)
        signal = Voxels(array, str(file)) if array.ndim == 3 else Cloud(array, str(file))
    if solid and not signal.solid:
        raise WeightgenError(
            "a point cloud has no inside", where=file, expected="a mesh or voxels", remedy="fit it as --kind udf"
        )
    return signal


def _bare_points(file: Path) -> numpy.ndarray | None:
    """The points of a file that holds no faces, as scanners write .ply."""
    if file.suffix.lower() != ".ply":
        return None
    try:
        loaded = trimesh().load(str(file), process=False)
    except MissingDataError:
        raise
    except Exception:
        return None
    return None if hasattr(loaded, "faces") or not hasattr(loaded, "vertices") else numpy.asarray(loaded.vertices)


def _array(file: Path) -> numpy.ndarray:
    if file.suffix.lower() == ".xyz":
        try:
            return numpy.loadtxt(file, ndmin=2)[:, :3]
        except (ValueError, IndexError, OSError) as error:
            raise CorruptFileError("not rows of three numbers", where=file, got=str(error)[:200]) from error
    loaded = _arrays(file)
    if isinstance(loaded, numpy.ndarray):
        return loaded
    with loaded:
        keys = list(loaded)
        key = next((each for each in ("points", "voxels") if each in keys), keys[0] if len(keys) == 1 else None)
        if key is None:
            raise CorruptFileError("which array?", where=file, got=", ".join(keys), expected="'points' or 'voxels'")
        return loaded[key]

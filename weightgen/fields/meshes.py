"""Triangle meshes as signals, read by trimesh.

The sign is that of the generalised winding number, https://igl.ethz.ch/projects/winding-number: the solid angle under
which all triangles are seen, over 4π. It is 1 within a closed surface and 0 without, and says so still if a few
triangles are missing; where it says neither for many points, there is no inside and a signed distance is refused.
"""

from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from weightgen.errors import CorruptFileError, MissingDataError, WeightgenError
from weightgen.fields.signals import brought_in

ENDINGS = (".obj", ".off", ".ply", ".stl", ".glb", ".gltf")
SPREAD = 30_000
"""Points on the surface by which the triangles near a point are found."""
NEAR = 8
"""Points of the surface whose triangles are measured exactly."""
AT_ONCE = 4_000_000
"""Pairs of point and triangle whose solid angle is computed at once."""
UNDECIDED, UNDECIDED_SHARE = 0.25, 0.02
"""A winding number this far from a whole one says nothing; more such points than this share, and the mesh is open."""


class Mesh:
    """A triangle mesh, brought into the sphere.

    Args:
        vertices: `[n, 3]`.
        faces: `[m, 3]`, indices of vertices.
        solid: whether distances are signed.
        where: what errors call it.

    Raises:
        WeightgenError: if the mesh is empty or degenerate, or if `solid` is set and it has no inside.
        MissingDataError: if trimesh is not installed.
    """

    def __init__(self, vertices: numpy.ndarray, faces: numpy.ndarray, solid: bool, where: str = "the mesh") -> None:
        from scipy.spatial import cKDTree

        vertices, faces = numpy.asarray(vertices), numpy.asarray(faces)
        if not len(faces) or faces.ndim != 2 or faces.shape[1] != 3:
            raise WeightgenError(
                "the mesh has no triangles", where=where, got=f"{len(vertices)} vertices, {len(faces)} faces",
                remedy="a point cloud can be fitted as it is: save it as .npy or .xyz",
            )  # fmt: skip
        if faces.min() < 0 or faces.max() >= len(vertices):
            raise WeightgenError(
                "a face names a vertex that is not there", where=where, got=int(faces.max()),
                expected=f"0 to {len(vertices) - 1}",
            )  # fmt: skip
        # Vertices that no face has must not decide where the mesh lies.
        used, faces = numpy.unique(faces, return_inverse=True)
        points, self.centre, self.scale = brought_in(vertices[used], where)
        triangles = points[faces.reshape(-1, 3)].astype(numpy.float64)
        normals = numpy.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        areas = numpy.linalg.norm(normals, axis=1) / 2
        if areas.sum() < 1e-8:
            raise WeightgenError(
                "the mesh is degenerate", where=where, got=f"{len(areas)} triangles without area",
                expected="a surface",
            )  # fmt: skip
        self.triangles = triangles[areas > 0]
        self.solid = solid
        self._shares = torch.from_numpy(areas[areas > 0])
        spread = torch.Generator().manual_seed(0)
        spots, self._owners = self._spots(SPREAD, spread)
        self._tree = cKDTree(spots.numpy())
        if solid:
            self._check_inside(where, spread)

    @classmethod
    def read(cls, path: Path | str, solid: bool) -> "Mesh":
        """The mesh of a file of any kind that trimesh reads.

        Raises:
            CorruptFileError: if it cannot be read.
        """
        library = trimesh()
        try:
            loaded = library.load(str(path), force="mesh", process=False)
            vertices, faces = loaded.vertices, loaded.faces
        except Exception as error:
            # What trimesh raises for a damaged file, or one of another kind, is of any class.
            raise CorruptFileError(
                "not a mesh that can be read", where=path, got=str(error)[:200], expected=", ".join(ENDINGS)
            ) from error
        return cls(vertices, faces, solid, str(path))

    def distance(self, points: Tensor) -> Tensor:
        _, near = self._tree.query(points.numpy(), NEAR)
        owners = self._owners.numpy()[near]  # [n, NEAR]
        repeated = numpy.repeat(points.numpy().astype(numpy.float64), NEAR, 0)
        closest = trimesh().triangles.closest_point(self.triangles[owners.reshape(-1)], repeated)
        found = numpy.linalg.norm(closest - repeated, axis=1).reshape(-1, NEAR).min(1)
        distances = torch.from_numpy(found).float()
        return torch.where(self.winding(points).abs() > 0.5, -distances, distances) if self.solid else distances

    def winding(self, points: Tensor) -> Tensor:
        """The generalised winding number of points `[n, 3]`, `[n]`."""
        step = max(1, AT_ONCE // len(self.triangles))
        corners = torch.from_numpy(self.triangles).float()
        return torch.cat([_winding(part, corners) for part in points.float().split(step)])

    def surface(self, count: int, generator: torch.Generator) -> Tensor:
        return self._spots(count, generator)[0]

    def _spots(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points spread evenly over the triangles, and the triangle of each."""
        # torch.multinomial knows no more than 2²⁴ categories; a running sum knows any number.
        ends = self._shares.cumsum(0)
        where = ends[-1] * torch.rand(count, generator=generator, dtype=torch.float64)
        owners = torch.searchsorted(ends, where).clamp(max=len(ends) - 1)
        first, second = torch.rand(2, count, 1, generator=generator, dtype=torch.float64)
        root = first.sqrt()
        a, b, c = torch.from_numpy(self.triangles)[owners].unbind(1)
        return ((1 - root) * a + root * (1 - second) * b + root * second * c).float(), owners

    def _check_inside(self, where: str, generator: torch.Generator) -> None:
        numbers = self.winding(2 * torch.rand(2000, 3, generator=generator) - 1)
        undecided = ((numbers - numbers.round()).abs() > UNDECIDED).float().mean().item()
        if undecided > UNDECIDED_SHARE or not (self.winding(self._beneath(generator)).abs() > 0.5).any():
            raise WeightgenError(
                "the mesh has no inside", where=where,
                got=f"a surface that is open: for {100 * undecided:.0f} % of points it does not say where they are",
                expected="a closed mesh, or one with a few holes", remedy="fit it as --kind udf, or close it",
            )  # fmt: skip

    def _beneath(self, generator: torch.Generator) -> Tensor:
        """Points close to the surface, on either side."""
        spots = self.surface(1000, generator)
        return torch.cat([spots + 0.01 * torch.randn(len(spots), 3, generator=generator) for _ in range(2)])


def _winding(points: Tensor, triangles: Tensor) -> Tensor:
    """Solid angles after van Oosterom and Strackee, summed over triangles: `[n]`."""
    a, b, c = (triangles[None] - points[:, None, None]).unbind(2)  # [n, triangles, 3] each
    long_a, long_b, long_c = (side.norm(dim=-1) for side in (a, b, c))
    above = (a * torch.linalg.cross(b, c)).sum(-1)
    below = long_a * long_b * long_c + (a * b).sum(-1) * long_c + (b * c).sum(-1) * long_a + (c * a).sum(-1) * long_b
    return torch.atan2(above, below).sum(1) / (2 * torch.pi)


def trimesh() -> Any:
    """The library.

    Raises:
        MissingDataError: if it is not installed.
    """
    try:
        import trimesh as library
    except ImportError as error:
        raise MissingDataError("meshes need trimesh", remedy="install it: pip install 'weightgen[fields]'") from error
    return library

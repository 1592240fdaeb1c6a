"""Point clouds and voxels as signals."""

import numpy
import torch
from torch import Tensor

from weightgen.errors import WeightgenError
from weightgen.fields.signals import RADIUS, brought_in


class Cloud:
    """A point cloud: how far is the nearest point?

    Args:
        points: `[n, 3]`; they are brought into the sphere.
        where: what errors call it.

    Raises:
        WeightgenError: if there are fewer than two places, or some points are not finite.
    """

    solid = False

    def __init__(self, points: numpy.ndarray, where: str = "the cloud") -> None:
        from scipy.spatial import cKDTree

        self.points, self.centre, self.scale = brought_in(numpy.asarray(points), where)
        self._tree = cKDTree(self.points)

    def distance(self, points: Tensor) -> Tensor:
        return torch.from_numpy(self._tree.query(points.numpy())[0]).float()

    def surface(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.from_numpy(self.points)[torch.randint(len(self.points), (count,), generator=generator)]


class Voxels:
    """A solid of equal cubes: signed distance between their centres, interpolated.

    Args:
        filled: `[x, y, z]`, true where the solid is; the grid is brought into the sphere by what is filled.
        where: what errors call it.

    Raises:
        WeightgenError: if it is not a three-dimensional array of truths, or all or nothing is filled.
    """

    solid = True

    def __init__(self, filled: numpy.ndarray, where: str = "the voxels") -> None:
        from scipy.ndimage import distance_transform_edt

        filled = numpy.asarray(filled)
        if filled.ndim != 3 or not numpy.isin(numpy.unique(filled), (0, 1)).all():
            raise WeightgenError(
                "not voxels", where=where, got=f"{filled.dtype} {list(filled.shape)}", expected="[x, y, z] of 0 and 1"
            )
        filled = filled.astype(bool)
        if not filled.any():
            raise WeightgenError("no voxel is filled", where=where, expected="a solid")
        # Space around it, so that the surface is closed.
        filled = numpy.pad(filled, 1)
        centres = numpy.argwhere(filled)
        corners = numpy.concatenate([centres - 0.5, centres + 0.5])
        _, self.centre, self.scale = brought_in(corners, where)
        inside, outside = distance_transform_edt(filled), distance_transform_edt(~filled)
        # The surface lies half a voxel from the centres on either side of it.
        self._distances = numpy.where(filled, 0.5 - inside, outside - 0.5)
        self._edge = centres[inside[filled] <= 1.0]

    def distance(self, points: Tensor) -> Tensor:
        from scipy.ndimage import map_coordinates

        places = points.numpy() / self.scale + self.centre
        last = numpy.array(self._distances.shape) - 1
        within = places.clip(0, last)
        found = map_coordinates(self._distances, within.T, order=1, mode="nearest")
        found = found + numpy.linalg.norm(places - within, axis=1)
        return torch.from_numpy(found * self.scale).float()

    def surface(self, count: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(self._edge), (count,), generator=generator)
        places = torch.from_numpy(self._edge)[chosen] + torch.rand(count, 3, generator=generator) - 0.5
        return ((places - torch.from_numpy(self.centre)) * self.scale).float().clamp(-RADIUS, RADIUS)

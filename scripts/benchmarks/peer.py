"""hyperlight 0.0.5, the library published with the paper, behind the calls that the benchmarks use.

It is installed under runs/benchmarks when it is first needed.
"""

import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

PLACE = Path(__file__).resolve().parents[2] / "runs/benchmarks/hyperlight-0.0.5"


class Peer(nn.Module):
    """Its MIP around a network of linear and convolutional layers, with the hidden sizes of our default."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if not PLACE.exists():
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(PLACE)]
            subprocess.run([*command, "hyperlight==0.0.5"], check=True)
        if str(PLACE) not in sys.path:
            sys.path.append(str(PLACE))
        import hyperlight

        layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        self.network = hyperlight.hypernetize(network, modules=layers)
        shapes = self.network.external_shapes()
        self.hyper = hyperlight.HyperNet({"z": (1,)}, shapes, [16, 128], encoding="cos|sin")

    def forward_at(self, z: Tensor, images: Tensor) -> Tensor:
        """One condition `[1]` for all images, or one for each, `[n, 1]`: a call for each, as it has no other way."""
        if z.dim() == 1:
            with self.network.using_externals(self.hyper(z=z[None])):
                return self.network(images)
        return torch.cat([self.forward_at(one, image[None]) for one, image in zip(z, images, strict=True)])

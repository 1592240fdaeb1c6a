"""Radiance fields of procedural scenes: PSNR on views that were held out."""

from pathlib import Path
from typing import Any

import torch
from fields_modelnet import every

from weightgen.fields.fitting import Fitting
from weightgen.fields.radiance import fit_radiance, look, render_radiance
from weightgen.fields.rendering import contact_sheet, write_png
from weightgen.fields.shapes import make_shapes
from weightgen.fields.triplane import TriPlaneConfig

SCENES, VIEWS, HELD, SIDE = 12, 40, 4, 48
CONFIG = TriPlaneConfig(resolution=32, channels=8, hidden=(32, 32), outputs=4, decoder="relu", frequencies=2)
FIT = Fitting(steps=1000, points=128, plane_rate=1e-2, decoder_rate=2e-3)


def measure(cache: Path, out: Path) -> dict[str, Any]:
    """One scene of each class; the picture shows held-out views, the true one above the field's."""
    shapes = make_shapes(SCENES, 3)
    views, held = look(shapes, VIEWS, SIDE, 0), look(shapes, HELD, SIDE, 1)
    fitted = fit_radiance(CONFIG, views, held, range(SCENES), FIT, told=every(50))
    with torch.no_grad():
        found = render_radiance(CONFIG, fitted.tensors, held.poses[:, :1], SIDE)[:, 0]
    write_png(out / "fields_radiance.png", contact_sheet(torch.cat([held.images[:, 0], found]), SCENES))
    values = fitted.figures["psnr"]
    return {
        "scenes": SCENES, "views": VIEWS, "held_out": HELD, "side": SIDE, "steps": FIT.steps, "rays_a_step": FIT.points,
        "psnr": {"mean": round(values.mean().item(), 2), "worst": round(values.min().item(), 2)},
    }  # fmt: skip

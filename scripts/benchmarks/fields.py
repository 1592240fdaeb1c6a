"""Tri-planes: ModelNet10 from fields of random start, procedural shapes, segmentation, radiance, speed of fitting.

Writes results/fields.json, a part at a time, and the pictures beside it. Fitted fields are kept under --cache, and a
killed run goes on from there. Run it as `scripts/benchmarks/fields [PART…]`.
"""

import argparse
import json
import os
from pathlib import Path

import fields_modelnet
import fields_procedural
import fields_radiance
import fields_speed
import torch

RESULTS = Path(__file__).resolve().parent / "results"
PARTS = {
    "speed": fields_speed.measure,
    "modelnet": fields_modelnet.measure,
    "pointnet": fields_modelnet.measure_pointnet,
    "reconstruction": fields_procedural.reconstruction,
    "occupancy": fields_procedural.occupancy,
    "segmentation": fields_procedural.segmentation,
    "radiance": fields_radiance.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all of them if none is named")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/weightgen/benchmarks/fields")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    path = options.out / "fields.json"
    for name in options.parts or PARTS:
        found = PARTS[name](options.cache, options.out)
        found |= {
            "command": f"scripts/benchmarks/fields {name}", "torch": torch.__version__,
            "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        }  # fmt: skip
        result = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**result, name: found}, indent=1) + "\n")
        print(json.dumps({name: found}, indent=1), flush=True)


if __name__ == "__main__":
    main()

"""Six zoos of other people, in five formats: ingested, asked, and one of their networks measured on its task.

Reads $WEIGHTGEN_DATA (acasxu, estool, rl_agents, nerf, taesd, resnet_cifar10, cifar10_jpg.zip) and writes
results/foreign_zoos.json. Run it as `scripts/benchmarks/foreign_zoos`.
"""

import json
import os
import tempfile
import time
from pathlib import Path

from weightgen.tasks import evaluate, get_task
from weightgen.zoo import Zoo
from weightgen.zoo.ingest import Facts, ingest

RESULT = Path(__file__).resolve().parent / "results" / "foreign_zoos.json"
PATTERNS = {"acasxu": "ACASXU_run2a_{advisory:d}_{tau:d}_*", "nerf": "{scene}/checkpoint*"}
QUERIES = {
    "advisory = 3 and tau <= 5": "acasxu",
    "format = 'estool' and metrics.mean_return is known": "estool",
    "algorithm = 'a2c' and metrics.mean_return is known and learning_rate is known": "rl_agents",
    "metrics.psnr is known and name like '%:fine'": "nerf",
    "family = 'weightgen/resnet'": "resnet_cifar10",
    "has tensor '1.weight' with shape (64, *, 3, 3)": "taesd",
}
SHOWN = {
    "estool": "metrics.mean_return", "rl_agents": "metrics.mean_return", "nerf": "metrics.psnr",
    "acasxu": "hyperparameters.tau",
}  # fmt: skip


def main() -> None:
    data = Path(os.environ["WEIGHTGEN_DATA"])
    result: dict = {"command": "scripts/benchmarks/foreign_zoos", "ingest": {}, "queries": {}}
    with tempfile.TemporaryDirectory() as folder:
        zoo = Zoo.create(Path(folder) / "zoo")
        for name in dict.fromkeys(QUERIES.values()):
            begin = time.perf_counter()
            report = ingest(zoo, [data / name], Facts(tags=(name,), pattern=PATTERNS.get(name)))
            result["ingest"][name] = {
                "networks": len(report.added), "failed": len(report.failed),
                "passed_over": sum(report.skipped.values()), "seconds": round(time.perf_counter() - begin, 2),
            }  # fmt: skip
        for expression, name in QUERIES.items():
            records = list(zoo.query(expression).order_by("name").records())
            shown = {record["name"]: record.get(SHOWN.get(name, ""), record["architecture"]) for record in records}
            result["queries"][expression] = {"rows": len(records), "values": shown}
        result["damaged"] = zoo.verify().damaged
        result["architectures_known"] = zoo.query("not family = 'unknown'").count()
        result["networks"] = len(zoo)
        if (data / "cifar10_jpg.zip").is_file():
            task = get_task("cifar10")
            for row in zoo.query("family = 'weightgen/resnet'"):
                result.setdefault("accuracy_on_jpeg_cifar10", {})[row.name] = evaluate(row.load().build(), task)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

"""Kills ingests (signal 9) at random calls until a zoo is whole, again and again: nothing may be lost or doubled.

After each kill every tensor that was entered is held against its digest; in the end the catalogue, the embeddings and,
once what killed writers left behind is collected, the files must be those of an ingest that was never killed. Writes
results/kills.json; exits with 1 if anything differs. Run it as `scripts/benchmarks/kills [--kills 300] [--seed 0]`.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tested import tested

ROOT = Path(__file__).resolve().parent.parent.parent
RESULT = Path(__file__).resolve().parent / "results" / "kills.json"

SMALL, BIG = 30, 6
"""Networks that are packed together, and those that are written piece by piece."""


def files(zoo: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (zoo / "blobs").iterdir()}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    import torch

    from weightgen.zoo import Zoo

    # What is forked must have no threads.
    torch.set_num_threads(1)
    killing, chance, begin = tested("zoo/killing.py"), random.Random(arguments.seed), time.perf_counter()
    entered: Counter[int] = Counter()
    kills = zoos = 0
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        killing.write_sources(folder / "sources", SMALL, BIG)
        calls = killing.run(folder / "whole", folder / "sources")
        whole, blobs = killing.content(folder / "whole"), files(folder / "whole")
        while kills < arguments.kills:
            zoo = folder / f"zoo-{zoos}"
            # Moments of the whole ingest, so that the first kills of a zoo come at any place of it.
            while killing.run_killed(zoo, folder / "sources", chance.randrange(1, calls)):
                kills += 1
                if (zoo / "catalogue.db").is_file():
                    entered[len(Zoo(zoo))] += 1
                    failures += [f"after kill {kills}: {key}" for key in Zoo(zoo).verify().damaged]
            killing.run(zoo, folder / "sources")
            opened = Zoo(zoo)
            opened.gc(0)
            if killing.content(zoo) != whole or files(zoo) != blobs or opened.verify().damaged:
                failures.append(f"zoo {zoos} differs after kill {kills}")
            opened.catalogue.close()
            shutil.rmtree(zoo)
            zoos += 1
    result = {
        "command": f"scripts/benchmarks/kills --kills {arguments.kills} --seed {arguments.seed}",
        "kills": kills, "zoos": zoos, "calls_of_an_ingest": calls, "networks": SMALL + BIG,
        "kills_by_networks_entered": {str(number): entered[number] for number in sorted(entered)},
        "failures": failures, "seconds": round(time.perf_counter() - begin),
    }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""Reads thousands of damaged checkpoints of every format: no crash, no hang, no code run, nothing written.

A process of its own reads a few hundred at a time, so that even a crash of the interpreter is seen and named. Writes
results/fuzz.json; exits with 1 if anything went wrong. Run it as `scripts/benchmarks/fuzz [--files 12000] [--seed 0]`.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from tested import tested

ROOT = Path(__file__).resolve().parent.parent.parent
RESULT = Path(__file__).resolve().parent / "results" / "fuzz.json"

BATCH = 400
MEMORY = 6 * 2**30
"""Bytes of address space of a reading process; torch alone takes some gigabytes of it."""


def read_batch(name: str, seed: int, files: int) -> None:
    """Reads damaged sources of one format and prints what became of them; the number of the last one is on stderr."""
    examples, fuzzing = tested("formats/examples.py").EXAMPLES, tested("formats/fuzzing.py")
    warnings.simplefilter("ignore")
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = examples[name](Path(folder))
        originals = fuzzing.files_of(path)
        fuzzing.outcome(path)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        for number in range(seed, seed + files):
            print(number, file=sys.stderr, flush=True)
            fuzzing.damaged(path, originals, random.Random(f"{name} {number}"))
            found[fuzzing.outcome(path)] += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"found": found, "kilobytes": grown}))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", nargs=3)
    arguments = parser.parse_args()
    if arguments.batch:
        name, seed, files = arguments.batch
        read_batch(name, int(seed), int(files))
        return 0
    begin = time.perf_counter()
    names = sorted(tested("formats/examples.py").EXAMPLES)
    each = -(-arguments.files // len(names))
    formats, failures = {}, []
    for name in names:
        counts: Counter[str] = Counter()
        grown = 0
        for start in range(arguments.seed, arguments.seed + each, BATCH):
            files = min(BATCH, arguments.seed + each - start)
            command = [sys.executable, __file__, "--batch", name, str(start), str(files)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                lines = done.stderr.splitlines()
                last = next((line for line in reversed(lines) if line.isdigit()), "none")
                failures.append({"format": name, "file": last, "code": done.returncode, "error": lines[-1][:300]})
                continue
            report = json.loads(done.stdout.splitlines()[-1])
            counts.update(report["found"])
            grown = max(grown, report["kilobytes"])
        formats[name] = {**counts, "memory_grown_megabytes": round(grown / 1024, 1)}
        print(name, formats[name], flush=True)
    result = {
        "command": f"scripts/benchmarks/fuzz --files {arguments.files} --seed {arguments.seed}",
        "files": sum(one.get(kind, 0) for one in formats.values() for kind in ("network", "error", "unknown")),
        "failures": failures,
        "seconds": round(time.perf_counter() - begin),
        "formats": formats,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: result[key] for key in ("files", "failures", "seconds")}, indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

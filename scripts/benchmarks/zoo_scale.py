"""How a catalogue of a million networks answers, and how fast networks come in. Writes results/zoo_scale.json.

Queries are asked by a process of their own, as the command line would, and timed after one call to warm the disk cache.
Run it as `scripts/benchmarks/zoo_scale [--rows 1000000] [--networks 10000] [--megabytes 1000] [--folder DIR]`.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy

RESULT = Path(__file__).resolve().parent / "results" / "zoo_scale.json"
REPEATS = 15
TASKS = ("mnist", "digits", "cifar10", "svhn", "fashion")

QUERIES = {
    "filter, best 10 by metric": ("task = 'mnist' and metrics.accuracy > 0.95", ["-metrics.accuracy"], 10),
    "two bounds on the metric, best 10": ("metrics.accuracy between 0.2 and 0.3", ["-metrics.accuracy"], 10),
    "hyperparameter and tag, 10 smallest": ("seed = 777 and tag = 't3'", ["parameters"], 10),
    "rare tag, best 10 by metric": ("tag = 'rare'", ["-metrics.accuracy"], 10),
    "10 smallest": ("parameters < 5000", ["parameters"], 10),
    "one run": ("run = 'run-4321'", ["name"], 10),
}
WORDS = {"rare words": "matches 'w77 mnist'", "a beginning": "matches 'w12*'", "frequent word": "matches 'adam'"}
NEAREST = {"task": "task = 'mnist'", "metric": "metrics.accuracy > 0.9", "rare tag": "tag = 'rare'", "none": ""}


def make_catalogue(folder: Path, rows: int) -> dict:
    """A catalogue of synthetic rows, written as ingest writes them but without blobs; seconds and bytes."""
    from weightgen.zoo.catalogue import Catalogue
    from weightgen.zoo.spaces import write_vectors

    begin = time.perf_counter()
    Catalogue.create(folder)
    catalogue = Catalogue(folder)
    random = numpy.random.default_rng(0)
    step = 50_000
    for start in range(0, rows, step):
        numbers = range(start + 1, min(start + step, rows) + 1)
        accuracy, rate = random.random(len(numbers)), random.random(len(numbers))
        sizes = random.integers(1000, 100_000, len(numbers))
        vectors = random.standard_normal((len(numbers), 128), dtype=numpy.float32)
        models, figures, settings, tags, tensors, texts = [], [], [], [], [], []
        for index, number in enumerate(numbers):
            task, run = TASKS[number % len(TASKS)], f"run-{number // 10}"
            models.append((
                number, f"{number * 2654435761 % 2**64:016x}{number:016x}", f"net-{number}", "weightgen/mlp",
                "weightgen/mlp",
                int(sizes[index]), task, "trained", run, "train", "{}", "0.safetensors", "weightgen",
            ))  # fmt: skip
            figures.append((number, "accuracy", "test", "d", 0, float(accuracy[index])))
            settings += [(number, "learning_rate", float(rate[index])), (number, "seed", number % 1000)]
            tags.append((number, "rare" if number % 50_000 == 0 else f"t{number % 7}"))
            tensors += [(number, at, f"layer{at}.weight", "float32", "[8, 8]", 1.0, "0" * 32, 0, 0) for at in range(4)]
            texts.append((number, f"net-{number}", f"{task} {run} w{number % 1000} adam"))
        with catalogue.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO blobs VALUES ('0.safetensors', 0, 0)")
            tables = {
                "models": (models, 13), "metrics": (figures, 6), "hyperparameters": (settings, 3), "tags": (tags, 2),
                "tensors": (tensors, 9),
            }  # fmt: skip
            for table, (values, width) in tables.items():
                connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * width)})", values)
            connection.executemany("INSERT INTO texts (rowid, name, about) VALUES (?, ?, ?)", texts)
            write_vectors(connection, folder, "statistics-v1", list(numbers), list(vectors))
    catalogue.close()
    return {"seconds": round(time.perf_counter() - begin, 1), "bytes": (folder / "catalogue.db").stat().st_size}


def ask(folder: Path) -> dict:
    """Times of all questions, in milliseconds, and the memory of this process."""
    opened = []
    from weightgen.zoo import Zoo

    for _ in range(REPEATS):
        begin = time.perf_counter()
        zoo = Zoo(folder)
        opened.append(time.perf_counter() - begin)
    result: dict = {"open": _milliseconds(opened), "filter": {}, "words": {}, "nearest": {}}
    for name, (expression, order, limit) in QUERIES.items():
        query = zoo.query(expression).order_by(*order).limit(limit)
        result["filter"][name] = {**_timed(lambda query=query: list(query)), "rows": len(list(query))}
    for name, expression in WORDS.items():
        query = zoo.query(expression).limit(10)
        result["words"][name] = _timed(lambda query=query: list(query))
    for name, expression in NEAREST.items():
        query = zoo.query(expression)
        result["nearest"][name] = _timed(lambda query=query: query.nearest("net-500", 10))
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    result["memory_megabytes"] = int(peak.split()[1]) // 1024
    return result


def _timed(call) -> dict:
    call()
    times, processor = [], []
    for _ in range(REPEATS):
        begin, used = time.perf_counter(), time.process_time()
        call()
        times.append(time.perf_counter() - begin)
        processor.append(time.process_time() - used)
    # What the processors did does not depend on who else is waiting for them.
    return {**_milliseconds(times), "processor": round(statistics.median(processor) * 1000, 2)}


def _milliseconds(times: list[float]) -> dict:
    return {"median": round(statistics.median(times) * 1000, 2), "worst": round(max(times) * 1000, 2)}


INGEST = """
import json, sys, time
from pathlib import Path
from weightgen.zoo import Zoo
from weightgen.zoo.ingest import ingest
if __name__ == "__main__":
    begin = time.perf_counter()
    if sys.argv[4] == "started":
        import torch
    started = time.perf_counter() - begin
    begin, used = time.perf_counter(), time.process_time()
    report = ingest(Zoo.create(sys.argv[1]), [sys.argv[2]], workers=int(sys.argv[3]))
    seconds = time.perf_counter() - begin
    # The greatest memory of this process alone: getrusage would count that of the process that started it.
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps({
        "networks": len(report.added), "seconds": seconds, "processor_seconds": time.process_time() - used,
        "start_seconds": started,
        "memory_megabytes": int(peak.split()[1]) // 1024,
    }))
"""


def run_ingest(zoo: Path, source: Path, workers: int, started: bool = False) -> dict:
    """An ingest by a process of its own; if `started`, the seconds in which torch is imported are told apart."""
    with tempfile.TemporaryDirectory() as folder:
        # Workers import the script that started them.
        script = Path(folder) / "ingest.py"
        script.write_text(INGEST)
        command = [sys.executable, str(script), str(zoo), str(source), str(workers), "started" * started]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def ingest_small(folder: Path, networks: int) -> dict:
    """Networks of 5,130 parameters from a source of shards that each hold 500 of them."""
    import torch

    from weightgen.architecture import Architecture
    from weightgen.checkpoint import Card, Checkpoint, Metric
    from weightgen.zoo import Zoo, packing

    architecture = Architecture.parse("weightgen/mlp?hidden=50,26")
    packing.BLOB_NETWORKS = 500
    shapes = architecture.parameter_shapes()
    random = torch.Generator().manual_seed(0)

    def made():
        for seed in range(networks):
            tensors = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
            card = Card("digits", (Metric("accuracy", 0.5, "test", "d"),), {"seed": seed}, run=f"run-{seed}")
            yield Checkpoint(architecture, tensors, card)

    Zoo.create(folder / "source").add(made())
    results = {}
    for workers in (1, 2):
        runs = []
        for turn in range(3):
            zoo = folder / f"small-{workers}-{turn}"
            runs.append(run_ingest(zoo, folder / "source" / "blobs", workers))
            shutil.rmtree(zoo)
        one = sorted(runs, key=lambda run: run["seconds"])[1]
        results[f"{workers} processes"] = {
            "networks": one["networks"], "seconds": round(one["seconds"], 2),
            "processor_seconds_of_the_main_process": round(one["processor_seconds"], 2),
            "networks_a_second": round(one["networks"] / one["seconds"]), "memory_megabytes": one["memory_megabytes"],
            "runs": [round(run["seconds"], 2) for run in runs],
        }  # fmt: skip
    return {"parameters": architecture.parameters, **results}


def ingest_big(folder: Path, megabytes: int) -> dict:
    """One safetensors file against a copy of it in turn, both with an fsync at the end.

    The second or two in which torch is imported are left out, since they are the same for a file of any size.
    """
    import torch
    from safetensors.torch import save_file

    source = folder / "big.safetensors"
    parts = 10
    values = megabytes * 2**20 // 4 // parts
    save_file({f"layer{at}.weight": torch.randn(values // 1024, 1024) for at in range(parts)}, source)
    os.sync()

    def copy() -> float:
        begin = time.perf_counter()
        shutil.copyfile(source, folder / "copy")
        with open(folder / "copy", "rb+") as file:
            os.fsync(file.fileno())
        return time.perf_counter() - begin

    copies, ingests, memory, processor, starts = [], [], [], [], []
    for turn in range(5):
        copies.append(copy())
        one = run_ingest(folder / f"big-{turn}", source, 1, started=True)
        starts.append(one["start_seconds"])
        ingests.append(one["seconds"])
        memory.append(one["memory_megabytes"])
        processor.append(one["processor_seconds"])
        shutil.rmtree(folder / f"big-{turn}")
    size = source.stat().st_size / 2**20
    ratio = statistics.median(ours / theirs for ours, theirs in zip(copies, ingests, strict=True))
    return {
        "megabytes": round(size), "largest_tensor_megabytes": round(size / parts),
        "copy_megabytes_a_second": round(size / statistics.median(copies)),
        "ingest_megabytes_a_second": round(size / statistics.median(ingests)),
        "share_of_copy_speed": round(ratio, 2), "memory_megabytes": max(memory),
        "processor_seconds": round(statistics.median(processor), 2),
        "start_seconds": round(statistics.median(starts), 2),
    }  # fmt: skip


def load() -> float:
    """How many processes wanted a processor in the last minute."""
    return round(os.getloadavg()[0], 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--networks", type=int, default=10_000)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--ask", type=Path)
    parser.add_argument("--only", choices=("questions", "ingest"), help="keep the other figures that are there")
    arguments = parser.parse_args()
    if arguments.ask:
        print(json.dumps(ask(arguments.ask)))
        return
    result: dict = json.loads(RESULT.read_text()) if arguments.only else {}
    result["command"] = (
        f"scripts/benchmarks/zoo_scale --rows {arguments.rows} --networks {arguments.networks}"
        f" --megabytes {arguments.megabytes}"
    )
    result["cores"] = os.cpu_count()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        if arguments.only != "ingest":
            result.update(
                rows=arguments.rows, load_before=load(), catalogue=make_catalogue(folder / "million", arguments.rows)
            )
            command = [sys.executable, __file__, "--ask", str(folder / "million")]
            asked = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            result["milliseconds"] = json.loads(asked)
        if arguments.only != "questions":
            result["ingest_small"] = {"load_before": load(), **ingest_small(folder, arguments.networks)}
            result["ingest_big"] = {"load_before": load(), **ingest_big(folder, arguments.megabytes)}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

"""What a user waits for, in seconds: importing, help, the first line of `generate`, one network after start-up.

Also networks trained at once against one after the other, both sides in this run. Writes results/speed.json.
Run it as `scripts/benchmarks/speed`.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "results"
PROMPTS = {
    "digits": "a small convolutional network that reads handwritten digits, under 5k parameters",
    "mnist": "a small convolutional network for MNIST, under 5k parameters",
}
REPEATS = 5


def main() -> None:
    result = {
        "command": "scripts/benchmarks/speed",
        "import_seconds": _import_seconds(),
        "help_seconds": median_of(lambda: _run(["--help"])),
        "first_output_seconds": _first_output(),
        "generate_seconds": _generate(),
        "population": _population(),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "speed.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def median_of(call, repeats: int = REPEATS) -> float:
    return round(statistics.median(call() for _ in range(repeats)), 3)


def _run(arguments: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "weightgen", *arguments], check=True, capture_output=True)
    return time.perf_counter() - begin


def _import_seconds() -> float:
    """`import weightgen` alone, without the start of Python."""
    code = "import time; begin = time.perf_counter(); import weightgen; print(time.perf_counter() - begin)"
    return median_of(
        lambda: float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    )


def _first_output() -> float:
    """From the call of `weightgen generate` to the line that says what was understood."""

    def once() -> float:
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "weightgen",
                "generate",
                PROMPTS["digits"],
                "--out",
                f"{folder}/one.safetensors",
            ]
            begin = time.perf_counter()
            with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
                assert process.stderr is not None
                process.stderr.readline()
                seconds = time.perf_counter() - begin
                process.stderr.read()
            return seconds

    return median_of(once, 3)


def _generate() -> dict[str, float]:
    """One evaluated network with its novelty, in a process that has generated before."""
    from weightgen.errors import MissingDataError
    from weightgen.generation import run, understand
    from weightgen.tasks import get_task

    found = {}
    for task, prompt in PROMPTS.items():
        try:
            get_task(task).test()
        except MissingDataError:
            continue
        request = understand(prompt)
        run(request)

        def once(request=request) -> float:
            begin = time.perf_counter()
            run(request, seed=1)
            return time.perf_counter() - begin

        found[task] = median_of(once)
    return found


def _population(networks: int = 24, steps: int = 100) -> dict[str, float]:
    from weightgen.architecture import Architecture
    from weightgen.tasks import get_task
    from weightgen.training.population import Run, Schedule, train_population

    architecture, task = Architecture.parse("weightgen/cnn?channels=8,16"), get_task("digits")
    runs = [Run(seed, 3e-3, 1e-4) for seed in range(networks)]
    train_population(architecture, task, runs[:1], Schedule(5))
    begin = time.perf_counter()
    train_population(architecture, task, runs, Schedule(steps))
    together = time.perf_counter() - begin
    begin = time.perf_counter()
    for one in runs:
        train_population(architecture, task, [one], Schedule(steps))
    apart = time.perf_counter() - begin
    return {
        "networks": networks,
        "steps": steps,
        "together_seconds": round(together, 2),
        "one_by_one_seconds": round(apart, 2),
        "ratio": round(apart / together, 2),
    }


if __name__ == "__main__":
    main()

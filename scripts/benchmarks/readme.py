"""Writes the figures of the README from the committed results: `python scripts/benchmarks/readme.py [--check]`.

Every block between `<!-- figures:NAME -->` and `<!-- end -->` is made here; nothing else of the README is touched.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
OURS = ("IGPG", "IGPG + 50 steps")


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    made = fill(text)
    if "--check" in sys.argv[1:]:
        sys.exit(0 if made == text else "the README's figures are not those of scripts/benchmarks/results")
    readme.write_text(made, encoding="utf-8")


def fill(text: str) -> str:
    """The README with every block of figures made anew."""
    starter = json.loads((RESULTS / "starter.json").read_text())
    speed = json.loads((RESULTS / "speed.json").read_text())
    blocks = {"starter": table(starter), "control": control(starter), "speed": seconds(speed)}
    for name, lines in blocks.items():
        block = "\n".join([f"<!-- figures:{name} -->", *lines, "<!-- end -->"])
        text = re.sub(rf"<!-- figures:{name} -->.*?<!-- end -->", lambda _, block=block: block, text, flags=re.DOTALL)
    return text


def table(result: dict[str, Any]) -> list[str]:
    lines = [
        "| task | method | accuracy, % | − zoo mean | distance to zoo | to other samples | error IoU | N&P, % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["summary"]:
        name = f"**{row['method']}**" if row["method"] in OURS else row["method"]
        accuracy = row["accuracy"]
        # One seed has no deviation to show.
        spread = f" ± {100 * accuracy['deviation']:.2f}" if accuracy["deviation"] else ""
        lines.append(
            f"| {row['task']} | {name} | {100 * accuracy['mean']:.2f}{spread} "
            f"| {100 * row['gap']['mean']:+.2f} | {row['zoo_ratio']['mean']:.2f} | {row['sample_ratio']['mean']:.2f} "
            f"| {row['error_iou']['mean']:.2f} | {100 * row['novel_and_performant']['mean']:.0f} |"
        )
    return lines


def control(result: dict[str, Any]) -> list[str]:
    lines = [
        "| measured on | instruction for | accuracy, % | networks trained for that task, % |",
        "|---|---|---|---|",
    ]
    for task in sorted({row["task"] for row in result["control"]}):
        rows = [row for row in result["control"] if row["task"] == task]
        means = [100 * sum(row[name] for row in rows) / len(rows) for name in ("accuracy", "trained_on_the_other")]
        lines.append(f"| {task} | {rows[0]['instruction']} | {means[0]:.1f} | {means[1]:.1f} |")
    return lines


def seconds(result: dict[str, Any]) -> list[str]:
    population = result["population"]
    lines = ["| what | seconds |", "|---|---|", f"| `import weightgen` | {result['import_seconds']:.3f} |"]
    lines.append(f"| `weightgen --help` | {result['help_seconds']:.2f} |")
    lines.append(f"| `weightgen generate`: call to first output | {result['first_output_seconds']:.2f} |")
    for task, value in result["generate_seconds"].items():
        lines.append(f"| one network for {task}, evaluated, after start-up | {value:.2f} |")
    together, apart = population["together_seconds"], population["one_by_one_seconds"]
    lines.append(
        f"| {population['networks']} small CNNs trained for {population['steps']} steps, together / one by one "
        f"| {together:.2f} / {apart:.2f} ({population['ratio']:.1f} ×) |"
    )
    return lines


if __name__ == "__main__":
    main()

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
KERNEL_BARS = (
    "gather, ours: share of memcpy",
    "gather, ours, permuted and normalised: share of memcpy",
    "gather: times the best torch indexing",
    "gather: times python, with mask and positions",
    "gather: times python, tokens alone",
    "scatter, ours: share of memcpy",
    "scatter, ours, denormalised: share of memcpy",
    "scatter: times the best torch indexing",
    "scatter: times python, by positions",
    "scatter: times python, tensors alone",
    "scatter of codes, ours, denormalised, uint8: share of memcpy",
    "scatter of codes: times the best torch indexing",
    "scatter of codes: times python, by positions",
    "resnet50 gathered, milliseconds",
)
"""Those of all bars that tell the most; the others stand in results/kernels.json."""


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
    blocks = {
        "starter": table(starter),
        "control": control(starter),
        "speed": seconds(speed),
        "structure": structure(*(json.loads((RESULTS / f"{name}.json").read_text()) for name in ("axes", "layouts"))),
        "kernels": kernels(json.loads((RESULTS / "kernels.json").read_text())),
        "foreign": foreign(
            *(json.loads((RESULTS / f"{name}.json").read_text()) for name in ("foreign_zoos", "fuzz", "lineage"))
        ),
    }
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


def structure(axes: dict[str, Any], layouts: dict[str, Any]) -> list[str]:
    networks = axes["networks"].values()
    shares = sorted(row["share_in_groups"] for row in networks)
    single, double = (max(row[f"change_{kind}"] for row in networks) for kind in ("float32", "float64"))
    return [
        "| networks of weightgen, timm, torchvision, transformers and diffusers | |",
        "|---|---|",
        f"| traced | {len(shares)} |",
        f"| share of their parameters in a group: median, least | {shares[len(shares) // 2]:.3f}, {shares[0]:.3f} |",
        f"| greatest change of an output, every group permuted at random, of its size | {single:.1e} in float32, "
        f"{double:.1e} in float64 |",
        f"| to tokens and back without quantisation, equal to the bit in float32, float16 and bfloat16 "
        f"| {layouts['same_to_the_bit']} of {layouts['networks']} |",
    ]


def kernels(result: dict[str, Any]) -> list[str]:
    measured = result["bars"]
    threads = ["one thread" if count == "1" else f"{count} threads" for count in measured]
    lines = [
        f"| {result['networks']:,} networks of {result['values']:,} weights | {' | '.join(threads)} | aim |",
        "|---" * (len(threads) + 2) + "|",
    ]
    for name in KERNEL_BARS:
        bars, share = [one[name] for one in measured.values()], name.endswith("share of memcpy")
        reached = [_kernel_figure(bar["reached"], share) + ("" if bar["met"] else " (missed)") for bar in bars]
        lines.append(f"| {name} | {' | '.join(reached)} | {_kernel_figure(bars[0]['wanted'], share)} |")
    return lines


def _kernel_figure(value: float, share: bool) -> str:
    return f"{100 * value:.0f} %" if share else f"{value:.1f}"


def foreign(zoos: dict[str, Any], fuzz: dict[str, Any], lineage: dict[str, Any]) -> list[str]:
    read = ", ".join(f"{name} {entry['networks']}" for name, entry in zoos["ingest"].items())
    return [
        "| foreign zoos | |",
        "|---|---|",
        f"| networks read | {read} |",
        f"| damaged files of all formats, of which crashed, hung or ran code | {fuzz['files']:,}, "
        f"{len(fuzz['failures'])} |",
        f"| parents found from weights alone, of {lineage['edges']} fine-tuned networks: F1 | {lineage['f1']:.2f} |",
    ]


if __name__ == "__main__":
    main()

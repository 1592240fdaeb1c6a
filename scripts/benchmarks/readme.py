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


HYPERNETWORKS = (
    "plain", "+ input encoding", "+ output encoding, published", "MIP, published", "hyperlight 0.0.5, MIP", "weightgen"
)  # fmt: skip


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
        "tokenizer": tokenizer(json.loads((RESULTS / "tokenizer.json").read_text())),
        "alignment": alignment(json.loads((RESULTS / "alignment.json").read_text())),
        "growth": growth(json.loads((RESULTS / "resizing.json").read_text())),
        "kernels": kernels(json.loads((RESULTS / "kernels.json").read_text())),
        "foreign": foreign(
            *(json.loads((RESULTS / f"{name}.json").read_text()) for name in ("foreign_zoos", "fuzz", "lineage"))
        ),
        "zoo": zoo(*(json.loads((RESULTS / f"{name}.json").read_text()) for name in ("zoo_scale", "kills"))),
        "hypernetwork": hypernetworks(),
        "neumeta": neumeta(json.loads((RESULTS / "neumeta.json").read_text())),
    }
    for name, lines in blocks.items():
        block = "\n".join([f"<!-- figures:{name} -->", *lines, "<!-- end -->"])
        text = re.sub(rf"<!-- figures:{name} -->.*?<!-- end -->", lambda _, block=block: block, text, flags=re.DOTALL)
    return text


def growth(result: dict[str, Any]) -> list[str]:
    rows = result["growth"]
    changes = list(dict.fromkeys(row["change"] for row in rows))
    found = {(row["network"], row["change"]): row for row in rows}
    lines = [f"| | {' | '.join(changes)} |", "|---" * (len(changes) + 1) + "|"]
    for name in dict.fromkeys(row["network"] for row in rows):
        cells = [
            f"{found[name, change]['largest_change_of_a_logit']:.1e}" + ("*" if found[name, change]["notes"] else "")
            for change in changes
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, "", "\\* but for the residual stream: a layer norm over it is exact for whole multiples only."]


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


def tokenizer(result: dict[str, Any]) -> list[str]:
    lines = ["| network | weights by | bits a weight | accuracy, % | as it was, % |", "|---|---|---|---|---|"]
    zoo = [row for row in result["test"] if row["network"].startswith("starter")]
    rows = [row for row in result["test"] if row not in zoo]
    base = next(row["accuracy"] for row in rows if row["snr_db"] is None)

    def line(network: str, method: str, bits: float, accuracy: float, before: float) -> str:
        return f"| {network} | {method} | {bits:.2f} | {100 * accuracy:.2f} | {100 * before:.2f} |"

    for row in rows:
        if row["snr_db"] is not None:
            lines.append(line(row["network"], row["method"], row["bits_per_weight"], row["accuracy"], base))
    for task in dict.fromkeys(row["network"].split(", ")[1] for row in zoo):
        cells = [row for row in zoo if row["network"].split(", ")[1] == task]
        bits, after, before = (
            sum(row[name] for row in cells) / len(cells) for name in ("bits_per_weight", "accuracy", "before")
        )
        lines.append(line(f"starter zoo, held-out runs of {task}", "general tokenizer", bits, after, before))
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


def alignment(result: dict[str, Any]) -> list[str]:
    """How fast, how exact, and what it is worth."""
    (speed,) = result["speed"].values()
    barriers = list(result["barriers"].values())
    mean = {name: sum(row[name] for row in barriers) / len(barriers) for name in barriers[0]}
    copies = result["copies"].values()
    return [
        "| | |",
        "|---|---|",
        f"| networks of {speed['parameters']:,} parameters a second on one core, many at once "
        f"| {speed['per_second']:,} ({speed['per_second_with_scales']:,} with scales; a loop over networks without: "
        f"{speed['loop_per_second']:,.0f}) |",
        f"| {len(copies)} kinds of networks, permuted and rescaled at random: greatest distance from the original once "
        f"aligned, of its norm | {max(row['distance_after'] for row in copies):.0e} |",
        f"| accuracy of pairs of the starter zoo, {len(barriers)} tasks and architectures | {mean['networks']:.1f} % |",
        f"| of the mean of their weights: as they are, aligned by weights, by answers | {mean['raw']:.1f} %, "
        f"{mean['weights']:.1f} %, {mean['activations']:.1f} % |",
    ]


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


def zoo(scale: dict[str, Any], kills: dict[str, Any]) -> list[str]:
    asked, small, big = scale["milliseconds"], scale["ingest_small"], scale["ingest_big"]
    slowest = {kind: max(one["median"] for one in asked[kind].values()) for kind in ("filter", "words", "nearest")}
    memory = asked["memory_megabytes"]
    load = max(scale["load_before"], small["load_before"], big["load_before"])
    most, rate, share = 2 * big["largest_tensor_megabytes"] + 500, small["2 processes"]["networks_a_second"], 0.5
    rows = [
        ("opened, milliseconds", f"{asked['open']['median']:.1f}", asked["open"]["median"] <= 100, "100"),
        ("filter, order and limit by an index, milliseconds: slowest of " + str(len(asked["filter"])),
         f"{slowest['filter']:.1f}", slowest["filter"] <= 20, "20"),
        (f"full-text, slowest of {len(asked['words'])}", f"{slowest['words']:.1f}", slowest["words"] <= 100, "100"),
        (f"exact 10 nearest of 128 dimensions, slowest of {len(asked['nearest'])} filters",
         f"{slowest['nearest']:.0f}", slowest["nearest"] <= 100, "100"),
        ("memory of the asking process, MB", f"{memory}", memory <= 1000, "1,000"),
        ("small networks ingested a second, by two processes", f"{rate:,}", rate >= 2000, "2,000"),
        (f"a file of {big['megabytes']:,} MB ingested: share of the speed of a copy",
         f"{100 * big['share_of_copy_speed']:.0f} %", big["share_of_copy_speed"] >= share, f"{100 * share:.0f} %"),
        ("its peak of memory, MB", f"{big['memory_megabytes']}", big["memory_megabytes"] <= most, f"{most}"),
        ("ingests killed at random, of which lost or doubled something", f"{kills['kills']}, {len(kills['failures'])}",
         not kills["failures"], "0"),
    ]  # fmt: skip
    return [
        f"| a zoo of {scale['rows']:,} networks on {scale['cores']} cores, for which others waited too (load {load}) "
        "| reached | aim |",
        "|---|---|---|",
        *(f"| {name} | {value}{'' if met else ' (missed)'} | {aim} |" for name, value, met, aim in rows),
    ]


def hypernetworks() -> list[str]:
    """The ablation, up to three seeds of each form, and what else was measured."""
    ablation, speed, penalties, rotation, tradeoff = (
        json.loads((RESULTS / f"hypernetwork{name}.json").read_text())
        for name in ("", "_speed", "_regularisation", "_rotation", "_tradeoff")
    )
    angles, losses = rotation["summary"]["mean_of_all_angles"], tradeoff["summary"]
    took = rotation["summary"]["seconds_of_a_training"]
    longer = took["one hypernetwork, told the angle"] / took["one network for all angles"]
    lines = ["| MNIST turned by 0 to 180°, steps of each seed to 90 %; to 95 % | Adam | SGD |", "|---|---|---|"]
    for form in HYPERNETWORKS:
        told = []
        for optimiser, rate in (("adam", 1e-3), ("sgd", 1e-2)):
            runs = [
                row for row in ablation["runs"]
                if (row["form"], row["optimiser"], row["rate"]) == (form, optimiser, rate) and row["curve"]
            ]  # fmt: skip
            longest = [
                max((row for row in runs if row["seed"] == seed), key=lambda row: row["steps"])
                for seed in sorted({row["seed"] for row in runs} & {0, 1, 2})
            ]
            told.append("; ".join(_steps(longest, name) for name in ("to_90", "to_95")) if longest else "")
        lines.append(f"| {form} | {' | '.join(told)} |")
    return [
        *lines,
        "",
        "| one hypernetwork | against | |",
        "|---|---|---|",
        "| told the angle of a digit, mean of all angles | one network for all "
        f"| {100 * angles['one hypernetwork, told the angle']:.1f} % against "
        f"{100 * angles['one network for all angles']:.1f} % in as many steps, {longer:.1f} times the time |",
        f"| every weighting of the two losses of a VAE | a network of each of {len(tradeoff['weightings'])} "
        f"| at most {100 * losses['largest_excess_loss']:.1f} % more loss on average of {losses['seeds']} seeds, in "
        f"{100 * losses['share_of_seconds']:.0f} % of their time |",
        f"| every weight penalty | a network of each of {len(penalties['rows'])} "
        f"| {penalties['within_half_a_point']} within 0.5 points, all within {100 * penalties['largest_gap']:.1f}, in "
        f"{100 * penalties['share']:.0f} % of their time |",
        f"| a condition for each image, steps a second | hyperlight 0.0.5 "
        f"| {min(row['ratio'] for row in speed['steps_a_second']):.1f} × |",
        f"| ResNet-18, peak memory | its parameters and activations "
        f"| {max(row['ratio'] for row in speed['resnet18']):.1f} × |",
    ]


def _steps(rows: list[dict[str, Any]], name: str) -> str:
    return ", ".join(f"> {row['steps']:,}" if row[name] is None else f"{row[name]:,}" for row in rows)


def neumeta(result: dict[str, Any]) -> list[str]:
    """T1 and T2, test accuracy by the share of the full network's parameters; and T3 by hidden width."""
    lines = []
    for table, title in (("T1", "ResNet-20, inner width of the last block"), ("T2", "ResNet-20, all widths")):
        rows = [row for row in result["rows"] if row["table"] == table]
        sizes = sorted({row["parameters"] for row in rows}, reverse=True)
        if rows:
            shares = " | ".join(f"{100 * size / max(sizes):.0f} %" for size in sizes)
            lines += [f"| {title}; share of its parameters | {shares} |", "|---" * (len(sizes) + 1) + "|"]
        for method in dict.fromkeys(row["method"] for row in rows):
            cells = []
            for size in sizes:
                found = [row["accuracy"] for row in rows if (row["method"], row["parameters"]) == (method, size)]
                cells.append(f"{100 * sum(found) / len(found):.1f}" if found else "–")
            lines.append(f"| {'**NeuMeta**' if method == 'NeuMeta' else method} | {' | '.join(cells)} |")
        lines.append("")
    rows = [row for row in result["rows"] if row["table"] == "T3"]
    if rows:
        sizes = list(dict.fromkeys(row["size"] for row in rows))
        lines.append(f"| CNN on MNIST, all hidden widths | {' | '.join(map(str, sizes))} |")
        lines.append("|---" * (len(sizes) + 1) + "|")
        cells = []
        for size in sizes:
            found = [row["accuracy"] for row in rows if row["size"] == size]
            cells.append(f"{100 * sum(found) / len(found):.1f}")
        lines.append(f"| **NeuMeta**, trained at 8 to 32 | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()

"""From zoos and checkpoints to a general tokenizer on a shelf, with its card."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import weightgen
from weightgen.artefact import MODEL
from weightgen.errors import MissingDataError, OutputError
from weightgen.formats.opening import open_network
from weightgen.shelf import shelf_names
from weightgen.storage import tensor_digest
from weightgen.tokenizers.fitting import Fitting, Source, fit_general
from weightgen.tokenizers.general import GeneralConfig, GeneralTokenizer
from weightgen.tokenizers.quantiser import QuantiserConfig, health
from weightgen.training.loop import Progress
from weightgen.zoo import Zoo
from weightgen.zoo.catalogue import FILE_NAME

STATE = ".state.safetensors"
MEASURED = 40
"""Networks of each kind of source that a card is measured on."""


def make_general(
    places: Sequence[str],
    out: Path | str,
    sizes: Sequence[Any] = (),
    *,
    scaled: int = 128,
    fitting: Fitting | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> str:
    """Fits a general tokenizer on zoos (their training runs) and checkpoints, writes it, and returns a line about it.

    Args:
        sizes: those of `QuantiserConfig`, in order.
        scaled: fewest values that share a scale.

    Raises:
        OutputError: if there is a tokenizer already and `force` is not set.
        MissingDataError: if there is nothing to learn from.
    """
    config = GeneralConfig(QuantiserConfig(*sizes), scaled)
    out, begin = Path(out), time.process_time()
    if (out / MODEL).exists() and not force:
        raise OutputError("there is one already", where=out, remedy="choose another folder, or overwrite with --force")
    sources = [source for place in places for source in sources_of(place, "train")]
    if not sources:
        raise MissingDataError("nothing to learn from", got="no sources", expected="zoos and checkpoints")
    fitting = fitting or Fitting(seed=seed)
    tokenizer = fit_general(sources, config, fitting, state=out / STATE, progress=progress)
    seconds = time.process_time() - begin
    tokenizer.provenance = {
        "sources": [{"name": Path(place).name, "networks": len(sources_of(place, "train"))} for place in places],
        "seed": fitting.seed, "code": weightgen.__version__, "torch": torch.__version__,
    }  # fmt: skip
    tokenizer.save_pretrained(out, card(out.name, tokenizer, places, seconds))
    return f"{out}: learned from {len(sources)} networks in {seconds:.0f} s"


def sources_of(place: str, split: str) -> list[Source]:
    """The networks of a zoo's split, or the one of a checkpoint, which counts as training."""
    if (Path(place) / FILE_NAME).exists() or (place in shelf_names("zoo") and not Path(place).exists()):
        rows = Zoo.open(place).query(f"split = '{split}'")
        return [Source(row.name, row.load) for row in rows]
    return [Source(Path(place).name, lambda: open_network(place))] if split == "train" else []


def card(name: str, tokenizer: GeneralTokenizer, places: Sequence[str], seconds: float) -> str:
    """What a tokenizer is, how it was made, and what it measures on networks that it has not learned from."""
    q, books = tokenizer.config.quantiser, tokenizer._tensors()
    command = f"weightgen train tokenizer {' '.join(Path(place).name for place in places)} --out {name} " + " ".join(
        f"--{key} {value}"
        for key, value in {
            "chunk": q.chunk, "quantiser": q.kind, "levels": q.levels, "codebook": q.codebook, "groups": q.groups,
            "beam": q.beam, "scaled": tokenizer.config.scaled, "seed": tokenizer.provenance.get("seed", 0),
        }.items()
    )  # fmt: skip
    digest = tensor_digest(next(iter(books.values())))[:16]
    learned = ", ".join(f"{one['name']} ({one['networks']})" for one in tokenizer.provenance["sources"])
    return f"""# {name}: a WeightTokenizer for any network

A {q.kind} quantiser of {q.columns} codes for each {q.chunk} values, {q.bits} bits; codebooks of digest {digest},
learned in {seconds:.0f} s of one core on the networks of {learned}:

    {command}

{measured(tokenizer, places)}
Networks of other families are taken as well; `weightgen tokenize` says how much is lost (`snr_db`). The accuracy of
decoded networks: `scripts/benchmarks/tokenizer`, whose results stand in the README.
"""


def measured(tokenizer: GeneralTokenizer, places: Sequence[str]) -> str:
    """Codebook health and fidelity, on validation runs where a zoo has some, else on what was learned from."""
    held_out = [source for place in places for source in sources_of(place, "validation")][:MEASURED]
    chosen = held_out or [source for place in places for source in sources_of(place, "train")][:MEASURED]
    figures, codes = [], []
    for source in chosen:
        network = source.open()
        tokens = tokenizer.encode(network)
        codes.append(tokens.codes)
        figures.append(tokenizer.measure(network, tokens))
    bits = sum(one["bits_per_weight"] for one in figures) / len(figures)
    decibels = sum(one["snr_db"] or 0.0 for one in figures) / len(figures)
    rows = health(torch.cat(codes), tokenizer.config.quantiser.entries)
    lines = "\n".join(
        f"| {number} | {row['perplexity']:.0f} | {100 * row['dead']:.1f} |" for number, row in enumerate(rows, 1)
    )
    which = "validation runs" if held_out else "networks that were learned from"
    return f"""{len(chosen)} {which}: {bits:.2f} bits a weight, everything counted, {decibels:.1f} dB.

| code | perplexity, of {tokenizer.config.quantiser.entries:,} | never used, % |
|---|---|---|
{lines}
"""

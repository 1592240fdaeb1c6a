"""Training of the WeightTokenizer on reconstruction *and* behaviour.

Weight error alone gives networks that do not work: what counts is what a decoded network does. So each step decodes the
codes of training networks and codes mixed from several of them, runs the decoded networks on their task's training
images, and adds a term that keeps decoded mixtures as far apart, and as far from their parents, as training runs are.

What the decoded networks should answer is what the training networks answer together: their mean probabilities teach
more than labels do, and on blends of two images too, without which a small data set is learned by heart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from weightgen.storage import read_tensors, write_tensors
from weightgen.structure import Aligner, aligned_distances
from weightgen.structure.alignment import flat
from weightgen.tasks import get_task
from weightgen.tokenizers.model import Codec, CodecConfig
from weightgen.tokenizers.normalizer import Tensors, aligner, frame_key
from weightgen.tokenizers.tokenizer import Cell, WeightTokenizer, halved
from weightgen.training.loop import LoopConfig, Progress, train
from weightgen.training.population import mean_probabilities, population_logits

TEACHERS = 16
"""Training networks whose answers are averaged; more add little."""


@dataclass(frozen=True)
class TokenizerTraining:
    """How the tokenizer is trained.

    Args:
        loop: steps and rates; one step is one task of one frame.
        networks: networks of a step; as many mixtures come on top.
        images: images each decoded network sees.
        reconstruction: weight of the squared error of normalised weights.
        diversity: weight of the term that keeps networks apart.
        spacing: how far apart, in units of the distance between neighbouring training runs.
        neighbours: networks that each mixture is held against in a step.
        norm: weight of the term that keeps decoded networks within the norm of trained ones.
        mutation: largest share of the codes of a mixture that are drawn at random.
        least_images: a task with fewer training images gets blends of two on top, up to this many.
        seed: of everything random.
    """

    loop: LoopConfig
    networks: int = 12
    images: int = 64
    reconstruction: float = 1.0
    diversity: float = 3.0
    spacing: float = 1.1
    neighbours: int = 5
    norm: float = 10.0
    mutation: float = 0.2
    least_images: int = 20_000
    seed: int = 0


def mixtures(codes: Tensor, mutation: float, codebook: int) -> Tensor:
    """Each sequence takes every token from one of 2 parents, or more often of all, and some codes at random.

    Args:
        codes: `[networks, tokens, levels]`.

    Returns:
        As many mixtures, of the same shape.
    """
    networks, tokens, _ = codes.shape
    parents = torch.rand(networks, networks).argsort(1)
    count = torch.tensor([2, networks, networks])[torch.randint(3, (networks, 1))].clamp_max(networks)
    chosen = (torch.rand(networks, tokens) * count).long()
    mixed = codes[parents.gather(1, chosen), torch.arange(tokens)]
    rate = torch.rand(networks, 1, 1) * mutation
    return torch.where(torch.rand(mixed.shape) < rate, torch.randint(codebook, mixed.shape), mixed)


def train_tokenizer(
    cells: Sequence[Cell],
    codec: CodecConfig,
    training: TokenizerTraining,
    *,
    state: Path | None = None,
    progress: Progress | None = None,
) -> WeightTokenizer:
    """A tokenizer trained on the networks of `cells`, which must be training runs only.

    Raises:
        MissingDataError: if the data of a task is not on this machine.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        tokenizer = WeightTokenizer.untrained(codec, cells)
        for number, key in enumerate(tokenizer.codecs):

            def shown(done: int, total: int, text: str, number: int = number) -> None:
                if progress is not None:
                    progress(number * total + done, len(tokenizer.codecs) * total, text)

            place = None if state is None else state.with_name(f"{state.name}.{key}")
            train_codec(tokenizer, key, cells, training, state=place, progress=shown)
    for key, codec in tokenizer.codecs.items():
        # What is measured from here on is what will be saved.
        codec.load_state_dict({name: halved(tensor).to(tensor.dtype) for name, tensor in codec.state_dict().items()})
        if state is not None:
            state.with_name(f"{state.name}.{key}.done").unlink(missing_ok=True)
    return tokenizer


def train_codec(
    tokenizer: WeightTokenizer,
    key: str,
    cells: Sequence[Cell],
    training: TokenizerTraining,
    *,
    state: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Trains the codec of one frame on those of `cells` that belong to it; beside `state` the trained codec is kept.

    The tasks take turns by how much is left to learn of each. One codec for all frames at once was tried and gave one
    network again and again: the loss of frames whose mean network does not work at all drowned what codes say.
    """
    torch.manual_seed(training.seed)
    codec = tokenizer.codecs[key]
    fitting = [cell for cell in cells if frame_key(cell.architecture) == key]
    identity = {
        "training": asdict(training),
        "codec": asdict(codec.config),
        "cells": [[cell.task, str(cell.architecture), list(cell.ids)] for cell in fitting],
    }
    done = None if state is None else state.with_name(f"{state.name}.done")
    if done is not None and done.exists():
        header, tensors = read_tensors(done)
        if header == identity:
            codec.load_state_dict(tensors)
            return
    bench = [_Bench(tokenizer, cell, training.least_images) for cell in fitting]
    _begin_codebooks(codec, bench)
    # Part of the module while it is trained, so that a training that goes on later goes on with it.
    codec.register_buffer("left", torch.ones(len(bench)))

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        # Every task in turn at first, until it is known how hard each is.
        number = step % len(bench) if step < 20 else int(torch.multinomial(codec.left, 1))
        value, figures = _loss(codec, bench[number], training)
        codec.left[number] = 0.9 * codec.left[number] + 0.1 * figures["mixed"]
        return value, figures

    label = str(fitting[0].architecture)
    train(codec, loss, training.loop, identity=identity, state=state, progress=progress, label=label)
    del codec.left
    if done is not None:
        write_tensors(done, codec.state_dict(), identity)


@torch.no_grad()
def _begin_codebooks(codec: Codec, bench: Sequence["_Bench"]) -> None:
    """Lets k-means see all tasks at once; a codebook that begins on one of them serves the others badly."""
    codec.train()
    latents = [codec.latents(cell.values[:8]).flatten(0, 1) for cell in bench]
    codec.quantiser(torch.cat(latents)[None])


class _Bench:
    """A cell made ready for training: its networks aligned and normalised, its task's images at hand."""

    def __init__(self, tokenizer: WeightTokenizer, cell: Cell, least_images: int) -> None:
        self.normalizer = tokenizer.normalizer(cell.architecture)
        self.name, self.task = cell.task, tokenizer.tasks.index(cell.task)
        aligned = self.normalizer.align(cell.tensors, cell.task)
        self.values = self.normalizer.normalise(aligned, cell.task)  # [networks, tokens, chunk]
        self.flat = flat(aligned)
        self.aligned = aligned
        self.aligner = aligner(cell.architecture)
        distances = aligned_distances(aligned, aligned, self.aligner.groups, self.aligner.activation)
        self.spacing = distances.fill_diagonal_(float("inf")).min(1).values.median()
        self.logits = population_logits(cell.architecture)
        images, _ = get_task(cell.task).train()
        missing = max(0, least_images - len(images))
        first, second = torch.randint(len(images), (2, missing))
        share = torch.rand(missing, *[1] * (images.dim() - 1))
        self.images = torch.cat([images, share * images[first] + (1 - share) * images[second]])
        teachers = {name: tensor[:TEACHERS] for name, tensor in cell.tensors.items()}
        self.answers = mean_probabilities(cell.architecture, teachers, self.images)


def _loss(codec: Codec, bench: _Bench, training: TokenizerTraining) -> tuple[Tensor, Mapping[str, float]]:
    normalizer = bench.normalizer
    layout = normalizer.layout
    chosen = torch.randperm(len(bench.values))[: training.networks]
    values, count = bench.values[chosen], len(chosen)
    quantised, codes, commitment = codec.quantiser(codec.latents(values))
    mixed = codec.quantiser.get_output_from_indices(mixtures(codes, training.mutation, codec.config.codebook))
    latents = torch.cat([quantised, mixed])
    task = torch.full((2 * count,), bench.task)
    decoded = codec.decode_latents(latents, layout.coordinates, task)
    reconstruction = (decoded[:count] - values).square()[:, layout.mask].mean()

    tensors = normalizer.denormalise(decoded, bench.name)
    index = torch.randint(len(bench.images), (2 * count, training.images))
    logits, answers = bench.logits(tensors, bench.images[index]), bench.answers[index]
    # Against the entropy of the answers, so that 0 is a perfect pupil.
    behaviour = functional.kl_div(logits.log_softmax(-1), answers, reduction="none").sum(-1)
    of_networks, of_mixtures = behaviour[:count].mean(), behaviour[count:].mean()

    crowding = _crowding(bench, {name: tensor[count:] for name, tensor in tensors.items()}, chosen, training)
    excess = functional.relu(flat(tensors).norm(dim=1) / bench.flat[chosen].norm(dim=1).mean() - 1).square().mean()
    total = (
        training.reconstruction * reconstruction
        + of_networks
        + of_mixtures
        + training.diversity * crowding
        + training.norm * excess
        + commitment.sum()
    )
    figures = {
        "error": reconstruction,
        "loss": of_networks,
        "mixed": of_mixtures,
        "crowding": crowding,
    }
    return total, {name: figure.item() for name, figure in figures.items()}


def _crowding(bench: _Bench, mixed: Tensors, chosen: Tensor, training: TokenizerTraining) -> Tensor:
    """How much closer mixtures are to one another and to their parents than training runs are to one another.

    With permutation and scale removed: else a decoder learns to be different by shuffling the units of one network.
    """
    count = len(chosen)
    mixed = bench.aligner.canonicalise(mixed)
    known = {name: torch.cat([tensor, bench.aligned[name][chosen]]) for name, tensor in mixed.items()}
    # Each is held against a few others, drawn anew every step: the later half of `known` are its parents.
    others = (torch.arange(count)[:, None] + torch.randint(1, count, (count, training.neighbours))) % count
    others[:, 0] = torch.randint(count, 2 * count, (count,))
    first = {name: tensor.repeat_interleave(training.neighbours, 0) for name, tensor in mixed.items()}
    second = {name: tensor[others.flatten()] for name, tensor in known.items()}
    pairs = Aligner(bench.aligner.groups, bench.aligner.activation)
    pairs.reference = first
    distance = (flat(first) - flat(pairs.match(second))).norm(dim=1) / bench.spacing
    return functional.relu(1 - distance / training.spacing).square().mean()

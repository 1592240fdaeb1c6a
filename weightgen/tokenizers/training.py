"""Training of the WeightTokenizer's decoders on reconstruction *and* behaviour.

Weight error alone gives networks that do not work: what counts is what a decoded network does. So each step decodes the
codes of training networks and codes mixed from several of them, runs the decoded networks on their task's training
images, and adds a term that keeps decoded mixtures as far apart, and as far from their parents, as training runs are.

What a decoded network should answer is what its parents answer together, each by its share in the codes: their
probabilities teach more than labels do, and on blends of two images too, without which a small data set is learned by
heart. Were all taught by the same teachers, they would come to make the same errors.
"""

import functools
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
from weightgen.tokenizers.behavioural import BehaviouralTokenizer, Cell, halved
from weightgen.tokenizers.model import Codec, CodecConfig, Decoder
from weightgen.tokenizers.normalizer import Tensors, aligner
from weightgen.training.loop import LoopConfig, Progress, train
from weightgen.training.parallel import one_thread_each
from weightgen.training.population import population_logits, population_probabilities


@dataclass(frozen=True)
class TokenizerTraining:
    """How the tokenizer is trained.

    Args:
        loop: steps and rates of each decoder.
        networks: networks of a step; as many mixtures come on top.
        images: images each decoded network sees.
        hard: share of the images that are drawn by how unsure the training networks are of them together.
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
    hard: float = 0.5
    reconstruction: float = 0.05
    diversity: float = 5.0
    spacing: float = 1.2
    neighbours: int = 5
    norm: float = 5.0
    mutation: float = 0.2
    least_images: int = 20_000
    seed: int = 0


def mixtures(codes: Tensor, mutation: float, codebook: int) -> tuple[Tensor, Tensor]:
    """Each sequence takes every token from one of 2 parents, or more often of all, and some codes at random.

    Args:
        codes: `[networks, tokens, levels]`.

    Returns:
        As many mixtures, of the same shape, and the share of its tokens that each took from each network,
        `[mixtures, networks]`.
    """
    networks, tokens, _ = codes.shape
    parents = torch.rand(networks, networks).argsort(1)
    count = torch.tensor([2, networks, networks])[torch.randint(3, (networks, 1))].clamp_max(networks)
    chosen = parents.gather(1, (torch.rand(networks, tokens) * count).long())
    mixed = codes[chosen, torch.arange(tokens)]
    shares = functional.one_hot(chosen, networks).float().mean(1)
    rate = torch.rand(networks, 1, 1) * mutation
    return torch.where(torch.rand(mixed.shape) < rate, torch.randint(codebook, mixed.shape), mixed), shares


def train_tokenizer(
    cells: Sequence[Cell],
    codec: CodecConfig,
    training: TokenizerTraining,
    *,
    state: Path | None = None,
    progress: Progress | None = None,
    workers: int = 1,
) -> BehaviouralTokenizer:
    """A tokenizer trained on the networks of `cells`, which must be training runs only.

    Args:
        state: beside it the decoders that are done are kept, and those at work, so that a killed training goes on.
        workers: processes, each of one thread and with one decoder at a time; they change nothing of the result.

    Raises:
        MissingDataError: if the data of a task is not on this machine.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        tokenizer = BehaviouralTokenizer.untrained(codec, cells)
        # By number: the name of a task may hold what the name of a file may not.
        places = [None if state is None else state.with_name(f"{state.name}.{number}") for number in range(len(cells))]
        steps = {number: 0 for number in range(len(cells))}

        def shown(number: int, done: int, total: int, text: str) -> None:
            steps[number] = done
            if progress is not None:
                progress(sum(steps.values()), len(cells) * total, text)

        work = [
            (functools.partial(_trained, tokenizer, cell, training, place), number)
            for number, (cell, place) in enumerate(zip(cells, places, strict=True))
        ]
        for (_, number), tensors in zip(work, one_thread_each(work, shown, workers), strict=True):
            cell = cells[number]
            tokenizer.codec(cell.architecture).decoder(cell.task).load_state_dict(tensors)
    for trained in tokenizer.codecs.values():
        # What is measured from here on is what will be saved.
        trained.load_state_dict(
            {name: halved(tensor).to(tensor.dtype) for name, tensor in trained.state_dict().items()}
        )
    for place in places:
        if place is not None:
            _done(place).unlink(missing_ok=True)
    return tokenizer


def _trained(
    tokenizer: BehaviouralTokenizer, cell: Cell, training: TokenizerTraining, state: Path | None, progress: Progress
) -> dict[str, Tensor]:
    """Trains the decoder of one cell's task and architecture and gives its tensors; beside `state` they are kept.

    Each by itself: a decoder of two tasks learned either more slowly, and one of several architectures not at all.
    """
    codec = tokenizer.codec(cell.architecture)
    decoder = codec.decoder(cell.task)
    identity = {
        "training": asdict(training),
        "codec": asdict(codec.config),
        "cell": [cell.task, str(cell.architecture), list(cell.ids)],
    }
    if state is not None and _done(state).exists():
        header, tensors = read_tensors(_done(state))
        if header == identity:
            return tensors
    torch.manual_seed(training.seed)
    bench = _Bench(tokenizer, cell, training)
    train(
        decoder, lambda step: _loss(decoder, bench, training), training.loop,
        identity=identity, state=state, progress=progress, label=f"{cell.task} {cell.architecture}",
    )  # fmt: skip
    if state is not None:
        write_tensors(_done(state), decoder.state_dict(), identity)
    return decoder.state_dict()


def _done(state: Path) -> Path:
    return state.with_name(f"{state.name}.done")


class _Bench:
    """A cell made ready for training: its networks aligned and coded, its task's images and their answers at hand."""

    def __init__(self, tokenizer: BehaviouralTokenizer, cell: Cell, training: TokenizerTraining) -> None:
        self.normalizer = tokenizer.normalizer(cell.architecture)
        self.task = cell.task
        self.aligned = self.normalizer.align(cell.tensors, cell.task)
        self.norm = flat(self.aligned).norm(dim=1).mean()
        self.aligner = aligner(cell.architecture)
        distances = aligned_distances(self.aligned, self.aligned, self.aligner.groups, self.aligner.activation)
        self.spacing = distances.fill_diagonal_(float("inf")).min(1).values.median()
        self.logits = population_logits(cell.architecture)

        codec: Codec = tokenizer.codec(cell.architecture)
        self.values = self.normalizer.normalise(self.aligned, cell.task)  # [networks, tokens, chunk]
        self.codes, self.codebook = codec.encode(self.values), codec.config.codebook
        self.latents = codec.quantiser.get_output_from_indices

        images, _ = get_task(cell.task).train()
        missing = max(0, training.least_images - len(images))
        first, second = torch.randint(len(images), (2, missing))
        share = torch.rand(missing, *[1] * (images.dim() - 1))
        self.images = torch.cat([images, share * images[first] + (1 - share) * images[second]])
        # Half precision: with all networks and images this is the largest thing in memory.
        self.answers = population_probabilities(cell.architecture, cell.tensors, self.images, torch.float16)
        mean = self.answers.float().mean(0)
        unsure = -(mean * mean.clamp_min(1e-9).log()).sum(-1) + 1e-9
        chance = training.hard * unsure / unsure.sum() + (1 - training.hard) / len(unsure)
        self.drawn_below = chance.double().cumsum(0)

    def draw(self, networks: int, count: int) -> Tensor:
        """Images for each network, int64 `[networks, count]`."""
        index = torch.searchsorted(self.drawn_below, torch.rand(networks, count, dtype=torch.float64))
        return index.clamp_max(len(self.images) - 1)


def _loss(decoder: Decoder, bench: _Bench, training: TokenizerTraining) -> tuple[Tensor, Mapping[str, float]]:
    chosen = torch.randperm(len(bench.values))[: training.networks]
    codes, count = bench.codes[chosen], len(chosen)
    mixed, shares = mixtures(codes, training.mutation, bench.codebook)
    decoded = decoder(bench.latents(torch.cat([codes, mixed])))
    reconstruction = (decoded[:count] - bench.values[chosen]).square()[:, bench.normalizer.layout.mask].mean()

    tensors = bench.normalizer.denormalise(decoded, bench.task)
    index = bench.draw(2 * count, training.images)
    logits = bench.logits(tensors, bench.images[index])
    shares = torch.cat([torch.eye(count), shares])
    answers = torch.einsum("np,pnic->nic", shares, bench.answers[chosen][:, index].float())
    # Against the entropy of the answers, so that 0 is a perfect pupil.
    behaviour = functional.kl_div(logits.log_softmax(-1), answers, reduction="none").sum(-1)
    of_networks, of_mixtures = behaviour[:count].mean(), behaviour[count:].mean()

    crowding = _crowding(bench, {name: tensor[count:] for name, tensor in tensors.items()}, chosen, training)
    excess = functional.relu(flat(tensors).norm(dim=1) / bench.norm - 1).square().mean()
    total = (
        training.reconstruction * reconstruction
        + of_networks
        + of_mixtures
        + training.diversity * crowding
        + training.norm * excess
    )
    figures = {"error": reconstruction, "loss": of_networks, "mixed": of_mixtures, "crowding": crowding}
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

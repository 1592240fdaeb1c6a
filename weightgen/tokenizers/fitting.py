"""Fitting of the general tokenizer: codebooks from networks that are read one tensor at a time.

A first pass draws a fixed number of chunks out of all tensors of all networks, the same number of each tensor at most:
so neither one large network nor one large tensor decides. Codebooks are then learned on them. Memory holds one
tensor and the drawn chunks, however many networks there are.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from weightgen.checkpoint import Checkpoint
from weightgen.errors import MissingDataError
from weightgen.storage import read_tensors, write_tensors
from weightgen.tokenizers.general import GeneralConfig, GeneralTokenizer, Plan, loaded
from weightgen.tokenizers.layout import Layout
from weightgen.tokenizers.quantiser import Quantiser
from weightgen.tokenizers.scaling import Scaling
from weightgen.training.loop import Progress


@dataclass(frozen=True)
class Source:
    """A network to learn from.

    Args:
        name: what a card calls it.
        open: gives it, tensors on demand.
    """

    name: str
    open: Callable[[], Checkpoint]


@dataclass(frozen=True)
class Fitting:
    """How codebooks are learned.

    Args:
        pool: chunks that are drawn out of all networks.
        of_tensor: chunks that one tensor gives at most.
        steps: in which codebooks follow a batch of chunks.
        batch: chunks of a step.
        first: chunks of the first step, in which k-means places the codebooks.
        refinements: rounds over all chunks, in which the levels are fitted together.
        seed: of everything random.
        save_every: networks read, and steps made, between two saved states.
    """

    pool: int = 65_536
    of_tensor: int = 4_096
    steps: int = 25
    batch: int = 4_096
    first: int = 16_384
    refinements: int = 2
    seed: int = 0
    save_every: int = 20


def fit_general(
    sources: Sequence[Source],
    config: GeneralConfig,
    fitting: Fitting,
    *,
    state: Path | None = None,
    progress: Progress | None = None,
) -> GeneralTokenizer:
    """A tokenizer whose codebooks are learned on the networks.

    Args:
        state: a file from which a killed fitting goes on; removed at the end.
        progress: called with what is done, what there is to do, and a text.

    Raises:
        MissingDataError: if the networks have no weights.
    """
    identity = {"sources": [source.name for source in sources], "config": asdict(config), "fitting": asdict(fitting)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fitting.seed)
        total = len(sources) + fitting.steps + fitting.refinements
        work = _Work(config, fitting, state, identity, total, progress)
        for source in sources[work.done :]:
            # Whatever building a network draws must not change what is drawn here.
            with torch.random.fork_rng(devices=[]):
                network = source.open()
            work.draw(network)
            work.step(source.name)
        if not len(work.pool):
            raise MissingDataError("the networks have no weights to learn from", got=f"{len(sources)} networks")
        for number in range(work.done - len(sources), fitting.steps + fitting.refinements):
            if number >= fitting.steps:
                work.quantiser.refine(work.pool)
                work.step("codebooks together")
                continue
            count = fitting.first if number == 0 else fitting.batch
            work.quantiser.learn(work.pool[torch.randperm(len(work.pool))[:count]])
            work.step("codebooks")
    # What is measured from here on is what will be saved.
    tokenizer = GeneralTokenizer(config, work.quantiser, {})
    tokenizer.quantiser = loaded(config.quantiser, tokenizer._tensors())
    if state is not None:
        state.unlink(missing_ok=True)
    return tokenizer


class _Work:
    """The drawn chunks and the quantiser, with how far they are; kept in a file on the way."""

    def __init__(
        self, config: GeneralConfig, fitting: Fitting, state: Path | None, identity: dict, total: int,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        self.config, self.fitting, self.state, self.identity = config, fitting, state, identity
        self.total, self.progress, self.done = total, progress, 0
        self.pool, self.keys = torch.zeros(0, config.quantiser.chunk), torch.zeros(0, dtype=torch.float64)
        self.quantiser = Quantiser(config.quantiser)
        if state is not None and state.exists():
            self._restore(state)

    def draw(self, network: Checkpoint) -> None:
        """Lets the chunks of a network take their chance to be among those kept: the ones of the least keys."""
        for name in Plan.of(network.shapes, self.config.quantiser.chunk).layout.shapes:
            values = chunks(network.read(name), self.config)
            values = values[torch.randperm(len(values))[: self.fitting.of_tensor]]
            # A network's sign is an accident: this doubles what there is to learn from.
            values = values * (2 * torch.randint(2, (len(values), 1)) - 1)
            self.pool = torch.cat([self.pool, values])
            self.keys = torch.cat([self.keys, torch.rand(len(values), dtype=torch.float64)])
            kept = self.keys.argsort()[: self.fitting.pool]
            self.pool, self.keys = self.pool[kept], self.keys[kept]

    def step(self, text: str) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total, text)
        if self.state is not None and self.done % self.fitting.save_every == 0:
            tensors = {"pool": self.pool, "keys": self.keys, "random": torch.get_rng_state()}
            tensors |= {f"quantiser/{name}": one.clone() for name, one in self.quantiser.state_dict().items()}
            write_tensors(self.state, tensors, {"identity": self.identity, "done": self.done})

    def _restore(self, state: Path) -> None:
        header, tensors = read_tensors(state)
        if header.get("identity") != self.identity:
            return
        self.done, self.pool, self.keys = header["done"], tensors["pool"], tensors["keys"]
        torch.set_rng_state(tensors["random"])
        own = {name.removeprefix("quantiser/"): one for name, one in tensors.items() if name.startswith("quantiser/")}
        self.quantiser.load_state_dict(own)


def chunks(tensor: Tensor, config: GeneralConfig) -> Tensor:
    """The chunks of one tensor in unit size, `[tokens, chunk]`; rows of zeros, which teach nothing, are left out.

    A tensor that holds NaN or infinity has none.
    """
    layout = Layout.of({"weight": tensor}, config.quantiser.chunk)
    if not layout.tokens or not tensor.isfinite().all():
        return torch.zeros(0, config.quantiser.chunk)
    values = layout.gather({"weight": tensor[None]}, dtype=torch.float32)[0]
    scaled = Scaling.of(layout, config.scaled)
    normalised = scaled.normalise(values, scaled.measure(values))
    return normalised[normalised.abs().sum(1) > 0]

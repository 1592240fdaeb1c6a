"""IGPG: parameters written token by token by an autoregressive transformer that reads an instruction.

After "Instruction-Guided Autoregressive Neural Network Parameter Generation", https://arxiv.org/abs/2504.02012.

Notation: e the instruction's embedding, s_t the place of token t in the network, k_t,l its code of level l. The decoder
models p(k | e, s) = Π_t Π_l p(k_t,l | k_t,<l, k_<t, e, s_≤t): over tokens by a causal transformer with a key-value
cache, over the levels of one token by a small network. The length is that of the layout, so there is no end token.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from weightgen.architecture import Architecture
from weightgen.artefact import part, read_artefact, write_artefact
from weightgen.checkpoint import Card, Checkpoint
from weightgen.errors import CorruptFileError, WeightgenError
from weightgen.generators.generator import generators
from weightgen.generators.references import Remembered
from weightgen.instructions import Request
from weightgen.instructions.encoder import InstructionEncoder, InstructionEncoderConfig
from weightgen.structure import axis_groups
from weightgen.tasks import get_task
from weightgen.tokenizers import BehaviouralTokenizer
from weightgen.tokenizers.embedding import StructureEmbedding
from weightgen.training.population import unstack

KIND = "igpg"


@dataclass(frozen=True)
class PriorConfig:
    """Sizes of the autoregressive prior.

    Args:
        width: width of the transformer.
        layers: its layers.
        heads: its attention heads.
        dropout: of the inputs and between layers, against replaying the training networks.
    """

    width: int = 128
    layers: int = 3
    heads: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn.

    Args:
        temperature: of the logits; towards 0 the likeliest code is taken.
        top_p: only the likeliest codes that together have this probability are drawn from.
    """

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0 or not 0 < self.top_p <= 1:
            raise WeightgenError(
                "impossible sampling", got=f"temperature {self.temperature}, top_p {self.top_p}",
                expected="temperature above 0 and top_p in (0, 1]",
            )  # fmt: skip


class Prior(nn.Module):
    """p(codes | instruction, structure)."""

    def __init__(self, config: PriorConfig, codebook: int, levels: int, instruction: int) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaModel

        self.config, self.codebook, self.levels = config, codebook, levels
        width = config.width
        self.structure = StructureEmbedding(width)
        self.instruction = nn.Sequential(nn.Linear(instruction, width), nn.GELU(), nn.Linear(width, width))
        self.code = nn.ModuleList(nn.Embedding(codebook, width) for _ in range(levels))
        self.begin = nn.Parameter(torch.zeros(width))
        self.dropout = nn.Dropout(config.dropout)
        self.decoder = LlamaModel(
            LlamaConfig(
                vocab_size=1, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=config.layers,
                num_attention_heads=config.heads, num_key_value_heads=config.heads, attention_dropout=config.dropout,
                pad_token_id=None, bos_token_id=None, eos_token_id=None, attn_implementation="sdpa",
            )
        )  # fmt: skip
        self.heads = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, codebook))
            for _ in range(levels)
        )
        for embedding in self.code:
            nn.init.normal_(embedding.weight, std=0.5)

    def forward(self, codes: Tensor, coordinates: Tensor, instruction: Tensor) -> Tensor:
        """Log-likelihood of codes, level by level, under teacher forcing.

        Args:
            codes: int64 `[networks, tokens, levels]`.
            coordinates: `[tokens, coordinates]`.
            instruction: `[networks, instruction]`.

        Returns:
            logits `[networks, tokens, levels, codebook]`.
        """
        past = self._embedded(codes)
        begin = self.begin.expand(len(codes), 1, -1)
        inputs = self._inputs(torch.cat([begin, past[:, :-1]], dim=1), self.structure(coordinates), instruction)
        hidden = self.decoder(inputs_embeds=self.dropout(inputs), use_cache=False).last_hidden_state
        logits = []
        for level, head in enumerate(self.heads):
            logits.append(head(hidden))
            hidden = hidden + self.code[level](codes[..., level])
        return torch.stack(logits, dim=2)

    @torch.no_grad()
    def sample(
        self, coordinates: Tensor, instruction: Tensor, sampling: Sampling, generator: torch.Generator
    ) -> Tensor:
        """Draws codes int64 `[networks, tokens, levels]`, all networks at once, each token from the cached past.

        The header, which says for what task, is not drawn: it is what the instruction most likely means.
        """
        from transformers import DynamicCache

        # Renamed within transformers 5, and the old name warns.
        known = inspect.signature(self.decoder.forward).parameters
        argument = "cache" if "cache" in known else "past_key_values"
        places = self.structure(coordinates)
        cache = DynamicCache(config=self.decoder.config)
        previous = self.begin.expand(len(instruction), 1, -1)
        drawn = []
        for number, place in enumerate(places):
            inputs = self._inputs(previous, place[None], instruction)
            output = self.decoder(inputs_embeds=inputs, use_cache=True, **{argument: cache})
            hidden = output.last_hidden_state[:, 0]
            token = []
            for level, head in enumerate(self.heads):
                logits = head(hidden)
                token.append(logits.argmax(-1) if number == 0 else _draw(logits, sampling, generator))
                hidden = hidden + self.code[level](token[-1])
            drawn.append(torch.stack(token, dim=1))
            previous = self._embedded(drawn[-1][:, None])
        return torch.stack(drawn, dim=1)

    def _embedded(self, codes: Tensor) -> Tensor:
        return torch.stack([table(codes[..., level]) for level, table in enumerate(self.code)]).sum(0)

    def _inputs(self, past: Tensor, places: Tensor, instruction: Tensor) -> Tensor:
        return past + places + self.instruction(instruction)[:, None]


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """One code a row, from the smallest set of likeliest codes whose probability reaches `top_p`."""
    probabilities = (logits / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered >= sampling.top_p
        probabilities = torch.zeros_like(probabilities).scatter(1, order, ordered.masked_fill(beyond, 0))
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(1)


@generators.register("igpg")
class IGPG:
    """Instruction encoder, prior and tokenizer together: a Request in, Checkpoints out.

    Args:
        encoder: instruction → embedding.
        prior: embedding and structure → codes.
        tokenizer: codes → weights.
        remembered: `TASK|RECIPE` → what it learned from.
        sampling: how codes are drawn unless a call says otherwise.
        provenance: how it was made.
    """

    def __init__(
        self,
        encoder: InstructionEncoder,
        prior: Prior,
        tokenizer: BehaviouralTokenizer,
        remembered: Mapping[str, Remembered],
        sampling: Sampling | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.encoder = encoder
        self.prior = prior
        self.tokenizer = tokenizer
        self.remembered = dict(remembered)
        self.sampling = sampling or Sampling()
        self.provenance = dict(provenance or {})

    @torch.no_grad()
    def sample_codes(
        self, architecture: Architecture, instructions: Sequence[str], seed: int, sampling: Sampling | None = None
    ) -> Tensor:
        """Codes int64 `[len(instructions), tokens, levels]`, one network an instruction."""
        coordinates = self.tokenizer.coordinates(architecture)
        generator = torch.Generator().manual_seed(seed)
        embedding = self.encoder(list(instructions))
        return self.prior.sample(coordinates, embedding, sampling or self.sampling, generator)

    @torch.no_grad()
    def sample_tensors(
        self, architecture: Architecture, instructions: Sequence[str], seed: int, sampling: Sampling | None = None
    ) -> dict[str, Tensor]:
        """Networks `[len(instructions), …]`, one an instruction."""
        codes = self.sample_codes(architecture, instructions, seed, sampling)
        return self.tokenizer.decode_batch(codes, architecture)

    def sample(
        self, request: Request, num: int = 1, seed: int = 0, sampling: Sampling | None = None
    ) -> list[Checkpoint]:
        """`num` new networks for the request's task and architecture.

        Raises:
            UnknownNameError: if the tokenizer does not know the architecture.
            WeightgenError: if the request names none.
        """
        if request.architecture is None:
            raise WeightgenError("the request names no architecture", remedy="choose one, e.g. with --arch")
        architecture = Architecture.parse(request.architecture)
        axis_groups(architecture.parameter_shapes())
        codes = self.sample_codes(architecture, [conditioning(request)] * num, seed, sampling)
        tasks = dict(enumerate(self.tokenizer.tasks))
        understood = {tasks.get(header, "none") for header in codes[:, 0, 0].unique().tolist()}
        if understood != {request.task}:
            raise WeightgenError(
                "the generator reads the instruction as one for another task",
                where=f"'{request.instruction}'",
                got=", ".join(sorted(understood)),
                expected=request.task,
                remedy="word it more plainly",
            )
        tensors = self.tokenizer.decode_batch(codes, architecture)
        task = get_task(request.task)
        drawn = asdict(sampling or self.sampling)
        return [
            Checkpoint(
                architecture,
                state,
                Card(
                    task=request.task,
                    origin="generated",
                    preprocessing=asdict(task.preprocessing),
                    made_with={
                        "generator": self.provenance.get("id", "igpg"), "instruction": request.instruction,
                        "seed": seed, "index": index, **drawn,
                    },
                ),
            )
            for index, state in enumerate(unstack(tensors))
        ]  # fmt: skip

    def save_pretrained(self, folder: Path | str, card: str = "") -> None:
        """Writes prior and encoder; the tokenizer is its own artefact, named in the provenance."""
        tensors = {f"prior/{name}": tensor for name, tensor in self.prior.state_dict().items()}
        tensors |= {f"encoder/{name}": tensor for name, tensor in self.encoder.state_dict().items()}
        for cell, remembered in self.remembered.items():
            tensors |= {f"remembered/{cell}/{name}": tensor for name, tensor in remembered.to_tensors().items()}
        config = {
            "remembered": {cell: remembered.to_json() for cell, remembered in self.remembered.items()},
            "prior": asdict(self.prior.config),
            "codes": {"codebook": self.prior.codebook, "levels": self.prior.levels},
            "encoder": asdict(self.encoder.config),
            "sampling": asdict(self.sampling),
            "provenance": self.provenance,
        }
        write_artefact(folder, KIND, config, tensors, card)

    @classmethod
    def from_pretrained(cls, name_or_folder: Path | str) -> "IGPG":
        """A saved generator, by folder or by its name on the shelf, with the tokenizer it names.

        Raises:
            UnknownNameError: if it or its tokenizer is not there.
            MissingDataError: if a file of theirs is not.
            CorruptFileError: if a file is damaged, or the tokenizer is not the one it was trained with.
        """
        from weightgen.shelf import shelf

        folder = shelf("checkpoints", name_or_folder)
        config, tensors = read_artefact(folder, KIND)
        try:
            entries = {**config["encoder"], "tasks": tuple(config["encoder"]["tasks"])}
            encoder = InstructionEncoder(InstructionEncoderConfig(**entries))
            encoder.load_state_dict(part(tensors, "encoder"))
            prior = Prior(
                PriorConfig(**config["prior"]), config["codes"]["codebook"], config["codes"]["levels"],
                encoder.dimension,
            )  # fmt: skip
            prior.load_state_dict(part(tensors, "prior"))
            remembered = {
                cell: Remembered.read(entry, part(tensors, f"remembered/{cell}"))
                for cell, entry in config["remembered"].items()
            }
            provenance, sampling = config["provenance"], Sampling(**config["sampling"])
            named = provenance["tokenizer"]
            beside = folder / named["path"]
            tokenizer = BehaviouralTokenizer.from_pretrained(beside if beside.is_dir() else named["name"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CorruptFileError(
                "not a generator that this version can read", where=folder, got=str(error)
            ) from error
        if tokenizer.provenance.get("id") != named["id"]:
            raise CorruptFileError(
                "the tokenizer is not the one that the generator was trained with", where=folder,
                got=tokenizer.provenance.get("id"), expected=named["id"], remedy="fetch both again",
            )  # fmt: skip
        encoder.eval()
        prior.eval()
        return cls(encoder, prior, tokenizer, remembered, sampling, provenance)


def conditioning(request: Request) -> str:
    """The text the generator reads: the user's own words, and the task, which these may have left to an option."""
    return f"{request.instruction} ({request.task})"


def code_loss(prior: Prior, codes: Tensor, coordinates: Tensor, instruction: Tensor) -> Tensor:
    """Mean negative log-likelihood of a code, in nats."""
    logits = prior(codes, coordinates, instruction)
    return functional.cross_entropy(logits.flatten(0, 2), codes.flatten())

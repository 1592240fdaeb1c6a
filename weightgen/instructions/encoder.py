"""Instruction encoders: sentences → unit vectors that a generator is conditioned on."""

import functools
import itertools
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from weightgen.errors import InstructionError, MissingDataError
from weightgen.instructions.templates import Sentence, sentences
from weightgen.instructions.wording import canonical

DEFAULT_TASKS = ("digits", "mnist", "digits/even-odd", "mnist/even-odd", "digits/3v8", "mnist/3v8")
FAMILIES = ("any", "mlp", "cnn")


@dataclass(frozen=True)
class InstructionEncoderConfig:
    """The shape of an InstructionEncoder.

    Args:
        buckets: how many hash buckets words and their parts fall into.
        width: the size of a bucket's vector and of the hidden layer.
        dimension: the size of an embedding.
        tasks: the tasks that its training tells apart.
    """

    buckets: int = 4096
    width: int = 64
    dimension: int = 64
    tasks: tuple[str, ...] = DEFAULT_TASKS

    def __post_init__(self) -> None:
        if min(self.buckets, self.width, self.dimension) < 1 or not self.tasks:
            raise InstructionError("an instruction encoder needs sizes of at least 1 and a task", got=str(self))


class InstructionEncoder(nn.Module):
    """Hashed words, word pairs and character n-grams → their mean vector → two linear layers → a unit vector.

    Hashing needs no vocabulary file, and n-grams keep misspelt words near to the right ones. (Joulin et al., "Bag of
    Tricks for Efficient Text Classification", https://arxiv.org/abs/1607.01759.)
    """

    def __init__(self, config: InstructionEncoderConfig | None = None, seed: int = 0) -> None:
        super().__init__()
        self.config = config or InstructionEncoderConfig()
        width, dimension = self.config.width, self.config.dimension
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.buckets = nn.EmbeddingBag(self.config.buckets, width, mode="mean")
            self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, dimension))
            self.task_head = nn.Linear(dimension, len(self.config.tasks))
            self.family_head = nn.Linear(dimension, len(FAMILIES))

    @property
    def dimension(self) -> int:
        return self.config.dimension

    def forward(self, instructions: list[str]) -> Tensor:
        """Unit vectors float32 `[n, dimension]`, one for each instruction."""
        return self._embed([_features(text, self.config.buckets) for text in instructions])

    def similarity(self, left: list[str], right: list[str]) -> Tensor:
        """Cosine of every pair, `[len(left), len(right)]`."""
        return self(left) @ self(right).T

    def fit(self, examples: Sequence[Sentence] | None = None, *, epochs: int = 4, seed: int = 0) -> dict[str, float]:
        """Trains on sentences so that the embedding tells their task and family; starts from new random weights.

        Args:
            examples: sentences whose tasks are among the config's; by default 1,500 template sentences for each.
            epochs: how often each is seen, with words dropped and letters swapped anew every time.
            seed: decides weights, order and noise; the same seed gives the same encoder.

        Returns:
            The shares of a held-out tenth whose task and family are told right: `{"task_accuracy", "family_accuracy"}`.
        """
        if examples is None:
            examples = [one for task in self.config.tasks for one in sentences(task, 1500, seed)]
        if unknown := {one.task for one in examples} - set(self.config.tasks):
            raise InstructionError(
                "a sentence for a task that the encoder was not made for",
                got=", ".join(sorted(unknown)),
                expected=f"one of: {', '.join(self.config.tasks)}",
            )
        if len(examples) < 10:
            raise InstructionError("too few sentences to train on", got=str(len(examples)), expected="10 or more")
        fresh = InstructionEncoder(self.config, seed)
        self.load_state_dict(fresh.state_dict())
        source = random.Random(seed)
        shuffled = source.sample(list(examples), len(examples))
        held_out, training = shuffled[: len(shuffled) // 10], shuffled[len(shuffled) // 10 :]
        batch = min(64, len(training))
        steps = epochs * (len(training) // batch)
        optimizer = torch.optim.AdamW(self.parameters(), lr=2e-2, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=max(steps, 2))
        self.train()
        for _ in range(epochs):
            source.shuffle(training)
            for start in range(0, len(training) - batch + 1, batch):
                part = training[start : start + batch]
                texts = [_noisy(one.text, source) for one in part]
                task_logits, family_logits = self._logits(texts)
                tasks, families = self._labels(part)
                loss = nn.functional.cross_entropy(task_logits, tasks)
                loss = loss + nn.functional.cross_entropy(family_logits, families)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        self.eval()
        with torch.no_grad():
            task_logits, family_logits = self._logits([one.text for one in held_out])
        tasks, families = self._labels(held_out)
        return {
            "task_accuracy": (task_logits.argmax(-1) == tasks).double().mean().item(),
            "family_accuracy": (family_logits.argmax(-1) == families).double().mean().item(),
        }

    def _embed(self, features: list[list[int]]) -> Tensor:
        device = self.buckets.weight.device
        lengths = torch.tensor([0, *map(len, features)], dtype=torch.int64)
        flat = torch.tensor([bucket for one in features for bucket in one], dtype=torch.int64)
        pooled = self.buckets(flat.to(device), lengths.cumsum(0)[:-1].to(device))  # [n, width]
        return nn.functional.normalize(self.layers(pooled), dim=-1)

    def _logits(self, instructions: list[str]) -> tuple[Tensor, Tensor]:
        # A unit vector alone bounds the logits so tightly that cross-entropy cannot fall.
        embedding = 8 * self(instructions)
        return self.task_head(embedding), self.family_head(embedding)

    def _labels(self, part: Sequence[Sentence]) -> tuple[Tensor, Tensor]:
        device = self.buckets.weight.device
        tasks = [self.config.tasks.index(one.task) for one in part]
        families = [FAMILIES.index(one.family or "any") for one in part]
        return torch.tensor(tasks, device=device), torch.tensor(families, device=device)


class PretrainedInstructionEncoder(nn.Module):
    """A frozen transformers text model from a local folder, mean-pooled; same call as InstructionEncoder.

    Args:
        path: a folder with `config.json`, `model.safetensors` and a tokenizer; nothing is downloaded.

    Raises:
        MissingDataError: if the folder holds no such model.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
            self.model = AutoModel.from_pretrained(str(path), local_files_only=True, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise MissingDataError(
                "no text model there",
                where=path,
                got=str(error).splitlines()[0],
                expected="a folder with config.json, model.safetensors and a tokenizer",
            ) from error
        self.model.requires_grad_(False).eval()

    @property
    def dimension(self) -> int:
        return self.model.config.hidden_size

    def train(self, mode: bool = True) -> "PretrainedInstructionEncoder":
        """Stays in evaluation mode: it is frozen, so dropout would only add noise."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, instructions: list[str]) -> Tensor:
        """Unit vectors float32 `[n, dimension]`, one for each instruction."""
        if not instructions:
            return torch.zeros(0, self.dimension, device=self.model.device)
        limit = getattr(self.model.config, "max_position_embeddings", 512)
        tokens = self._tokenizer(instructions, padding=True, truncation=True, max_length=limit, return_tensors="pt")
        tokens = tokens.to(self.model.device)
        hidden = self.model(**tokens).last_hidden_state  # [n, tokens, dimension]
        mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return nn.functional.normalize(pooled.float(), dim=-1)

    def similarity(self, left: list[str], right: list[str]) -> Tensor:
        """Cosine of every pair, `[len(left), len(right)]`."""
        return self(left) @ self(right).T


def _features(text: str, buckets: int) -> list[int]:
    """The hash buckets of a sentence's words, word pairs and character n-grams; never empty."""
    words = ["<", *canonical(text[:2000]).split(), ">"]
    found = [_bucket(f"pair {left} {right}", buckets) for left, right in itertools.pairwise(words)]
    for word in words[1:-1]:
        found += _word_features(word, buckets)
    return found


@functools.lru_cache(maxsize=100_000)
def _word_features(word: str, buckets: int) -> tuple[int, ...]:
    framed = f"<{word}>"
    parts = [framed[start : start + size] for size in (3, 4, 5) for start in range(len(framed) - size + 1)]
    return tuple(_bucket(name, buckets) for name in (f"word {word}", *parts))


def _bucket(name: str, buckets: int) -> int:
    # Python's own hash of a text differs from run to run.
    return zlib.crc32(name.encode()) % buckets


def _noisy(text: str, source: random.Random) -> str:
    """The text as a hurried writer types it: now and then a word left out or two letters swapped.

    Words that may carry the meaning by themselves are few, so a word is dropped only one time in twenty.
    """
    words = []
    for word in text.split():
        chance = source.random()
        if chance < 0.05:
            continue
        if chance < 0.08 and len(word) > 4 and word.isalpha():
            spot = source.randrange(1, len(word) - 2)
            word = word[:spot] + word[spot + 1] + word[spot] + word[spot + 2 :]
        words.append(word)
    return " ".join(words)

import dataclasses

import pytest
import torch

from weightgen.tasks import get_task
from weightgen.tokenizers import BehaviouralTokenizer, Cell
from weightgen.tokenizers.model import CodecConfig
from weightgen.tokenizers.training import TokenizerTraining, mixtures, train_tokenizer
from weightgen.training.loop import LoopConfig
from weightgen.training.population import population_predictions


def accuracy_of_decoded(tokenizer: BehaviouralTokenizer, cell: Cell) -> float:
    codes = tokenizer.encode_batch(cell.tensors, cell.architecture, cell.task)
    images, labels = get_task(cell.task).validation()
    found = population_predictions(cell.architecture, tokenizer.decode_batch(codes, cell.architecture), images)
    return (found == labels).double().mean().item()


def test_training_makes_decoded_networks_work(cell, codec):
    training = TokenizerTraining(LoopConfig(150, learning_rate=5e-3, warmup=5), networks=8, images=32)
    untrained = dataclasses.replace(training, loop=LoopConfig(1, learning_rate=0.0))
    before = accuracy_of_decoded(train_tokenizer([cell], codec, untrained), cell)
    tokenizer = train_tokenizer([cell], codec, training)
    # Measured: from 0.61, about the mean of the networks, to 0.89; the networks themselves reach 0.91.
    assert accuracy_of_decoded(tokenizer, cell) > before + 0.2
    assert not any(codec.training for codec in tokenizer.codecs.values())


def trained(cell: Cell, codec: CodecConfig, **options) -> dict[str, torch.Tensor]:
    training = TokenizerTraining(LoopConfig(8, warmup=2, save_every=3), networks=4, images=8)
    return train_tokenizer([cell], codec, training, **options).codec(cell.architecture).state_dict()


def test_an_interrupted_training_ends_with_the_same_bytes(cell, codec, tmp_path):
    whole = trained(cell, codec)
    state = tmp_path / "state.safetensors"

    def stop(done: int, steps: int, text: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(cell, codec, state=state, progress=stop)
    seen = []
    resumed = trained(cell, codec, state=state, progress=lambda done, steps, text: seen.append(done))
    assert seen == [4, 5, 6, 7, 8]
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert not list(tmp_path.iterdir())


def test_training_leaves_the_global_random_state_and_the_networks_alone(cell, codec):
    before = torch.get_rng_state()
    kept = {name: tensor.clone() for name, tensor in cell.tensors.items()}
    first, second = trained(cell, codec), trained(cell, codec)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(cell.tensors[name], kept[name]) for name in kept)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def parents() -> torch.Tensor:
    """Codes that say which network and token they are from."""
    torch.manual_seed(0)
    networks, tokens = 6, 400
    codes = torch.arange(networks)[:, None] * tokens + torch.arange(tokens)
    return torch.stack([codes, codes], dim=2)


def test_mixtures_without_mutation_take_whole_tokens_from_their_parents(parents):
    mixed, shares = mixtures(parents, 0.0, parents.max() + 1)
    assert mixed.shape == parents.shape
    assert torch.equal(mixed[:, :, 0], mixed[:, :, 1])
    assert torch.equal(mixed[:, :, 0] % 400, torch.arange(400).expand(6, -1))
    taken = torch.stack([(mixed[:, :, 0] // 400 == parent).float().mean(1) for parent in range(6)], dim=1)
    torch.testing.assert_close(shares, taken)
    counts, pairs = set(), set()
    for _ in range(10):
        for sequence in mixtures(parents, 0.0, parents.max() + 1)[0][:, :, 0] // 400:
            members = sequence.unique()
            shares = sequence.bincount()[members] / 400
            counts.add(len(shares))
            if len(members) == 2:
                pairs.add(tuple(members.tolist()))
            assert (shares - 1 / len(shares)).abs().max() < 0.15
    assert counts == {2, 6} and len(pairs) > 5


def test_mutation_draws_from_the_whole_codebook(parents):
    codes = torch.zeros_like(parents)
    changed = torch.stack([(mixtures(codes, 0.4, 8)[0] != 0).double().mean((1, 2)) for _ in range(20)])
    # A mutated code is another one in 7 of 8 cases; each sequence draws its own rate up to 0.4.
    assert changed.max() < 0.4 and changed.mean() == pytest.approx(0.2 * 7 / 8, abs=0.03) and changed.std() > 0.05
    assert mixtures(codes, 1.0, 8)[0].unique().tolist() == list(range(8))


def test_mixtures_of_one_network_are_itself(parents):
    assert torch.equal(mixtures(parents[:1], 0.0, 8)[0], parents[:1])


@pytest.mark.slow
def test_workers_change_nothing_of_the_result(cell, codec):
    other = dataclasses.replace(cell, architecture=cell.architecture.replace(activation="tanh"))
    training = TokenizerTraining(LoopConfig(4, warmup=1), networks=4, images=8, least_images=0)
    seen = []
    alone = train_tokenizer([cell, other], codec, training)
    together = train_tokenizer(
        [cell, other], codec, training, workers=2, progress=lambda done, steps, text: seen.append((done, steps))
    )
    assert seen[-1] == (8, 8)
    for key, trained in alone.codecs.items():
        found = together.codecs[key].state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in trained.state_dict().items())

from weightgen.checkpoint import Card, Checkpoint
from weightgen.tasks import get_task
from weightgen.tokenizers import GeneralConfig, QuantiserConfig
from weightgen.tokenizers.evaluation import evaluate_tokenizer
from weightgen.tokenizers.fitting import Fitting, Source, fit_general
from weightgen.training.population import unstack


def test_finer_codes_cost_more_bits_and_less_accuracy(cell):
    *learned, held_out = (Checkpoint(cell.architecture, one, Card(cell.task)) for one in unstack(cell.tensors))
    sources = [Source(str(number), lambda one=one: one) for number, one in enumerate(learned)]
    fitting = Fitting(pool=4_096, steps=3, batch=512, first=1_024, refinements=1)
    coarse, fine = (
        evaluate_tokenizer(
            fit_general(sources, GeneralConfig(QuantiserConfig("residual", 4, levels, entries)), fitting),
            held_out, get_task(cell.task),
        )
        for levels, entries in ((1, 2), (2, 128))
    )  # fmt: skip
    assert coarse["accuracy"]["before"] == fine["accuracy"]["before"] > 0.8
    assert coarse["accuracy"]["decoded"] < fine["accuracy"]["decoded"] and coarse["snr_db"] < fine["snr_db"]
    assert coarse["bits_per_weight"] < fine["bits_per_weight"]
    assert fine["accuracy"]["before"] - fine["accuracy"]["decoded"] < 0.05
    assert fine["accuracy"]["recalibrated"] is None, "it has no batch norms"

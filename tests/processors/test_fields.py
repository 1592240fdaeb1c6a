"""Zoos of fields and what reads them, at pico size: fitted and trained for real."""

import numpy
import pytest
import torch
import trimesh

from weightgen.cli import main
from weightgen.errors import ArchitectureError, DuplicateNameError, MissingDataError, UnknownNameError
from weightgen.fields.fitting import Fitting
from weightgen.fields.signals import Sampling
from weightgen.fields.sources import find_sources
from weightgen.fields.triplane import TriPlaneConfig
from weightgen.processors.field_parts import mean_part_iou, part_labels, part_mask, part_names, segment, train_segmenter
from weightgen.processors.field_training import TrainedProcessor, Training, accuracy, split_in_two, train_classifier
from weightgen.processors.field_zoo import fit_zoo, read_fields
from weightgen.processors.triplane import HEADS, Processor, ProcessorConfig
from weightgen.zoo import Zoo

CONFIG = TriPlaneConfig(8, 4, (8,), decoder="relu", frequencies=0)
FITTING, SAMPLING = Fitting(15, 128, decoder_rate=1e-2), Sampling(512, probes=64)
SMALL = {"width": 16, "layers": 1, "attention_heads": 2}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    zoo = Zoo.create(tmp_path_factory.mktemp("fields") / "zoo")
    fit_zoo(zoo, find_sources(["procedural:24"], True), "sdf", CONFIG, FITTING, SAMPLING)
    return zoo


@pytest.fixture(scope="module")
def fields(zoo):
    return read_fields(zoo)


def test_a_zoo_says_what_its_fields_are(zoo, fields):
    assert len(zoo) == 24 and len(fields.classes) == 12 and fields.kind == "sdf"
    assert fields.planes.shape == (24, 3, 4, 8, 8)
    row = zoo.row("procedural-0-00003-chair")
    assert row.hyperparameters["class"] == "chair" and "validation.iou" in row.metrics
    assert zoo.query("hyperparameters.class = 'chair'").count() == 2
    points = torch.rand(5, 3)
    assert row.load().build()(points).shape == (5, 1)


def test_a_fitting_goes_on_where_it_was(tmp_path, zoo):
    again = Zoo.create(tmp_path / "zoo")
    sources = find_sources(["procedural:24"], True)
    told = []

    def killed(done, total, text):
        told.append(done)
        if done > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_zoo(again, sources, "sdf", CONFIG, FITTING, SAMPLING, together=8, told=killed)
    assert len(again) == 8
    report = fit_zoo(again, sources, "sdf", CONFIG, FITTING, SAMPLING, together=8)
    assert (report.known, len(report.fitted)) == (8, 16)
    whole = Zoo.create(tmp_path / "whole")
    fit_zoo(whole, sources, "sdf", CONFIG, FITTING, SAMPLING, together=8)
    assert whole.digest == again.digest


def test_other_fields_of_the_same_name_are_refused(zoo):
    sources = find_sources(["procedural:24"], True)
    with pytest.raises(DuplicateNameError, match="kind sdf.*kind udf.*--out"):
        fit_zoo(zoo, sources, "udf", CONFIG, FITTING, SAMPLING)
    with pytest.raises(UnknownNameError):
        fit_zoo(zoo, sources, "uds", CONFIG, FITTING, SAMPLING)


def test_a_source_that_cannot_be_read_loses_no_other(tmp_path):
    numpy.save(tmp_path / "good.npy", numpy.random.default_rng(0).normal(size=(30, 3)))
    numpy.save(tmp_path / "bad.npy", numpy.full((30, 3), numpy.nan))
    numpy.save(tmp_path / "lone.npy", numpy.zeros((1, 3)))
    zoo = Zoo.create(tmp_path / "zoo")
    report = fit_zoo(zoo, find_sources([tmp_path], False), "udf", CONFIG, FITTING, SAMPLING)
    assert report.fitted == ["good"] and len(zoo) == 1
    assert set(report.failed) == {"bad", "lone"} and "not finite" in report.failed["bad"]


@pytest.mark.parametrize("head", HEADS)
def test_every_head_learns_what_it_sees(fields, head):
    options = SMALL if head == "transformer" else {"width": 16}
    everything = torch.arange(24)
    training = Training(epochs=40, batch=12, learning_rate=1e-2, weight_decay=0.0)
    processor = train_classifier(fields, everything, head, training, options={**options, "dropout": 0.0})
    assert accuracy(processor, fields, everything) > 1 / 12


def test_the_order_of_channels_means_nothing(fields):
    config = ProcessorConfig(8, 4, 12, **SMALL)
    torch.manual_seed(0)
    module = Processor(config).eval()
    order = torch.tensor([2, 0, 3, 1])
    planes = fields.planes[:6]
    one, other = (module(part, fields.decoders[:6]) for part in (planes, planes[:, :, order]))
    assert torch.allclose(one, other, atol=1e-5)
    cnn = Processor(ProcessorConfig(8, 4, 12, head="cnn", width=16)).eval()
    assert not torch.allclose(*(cnn(part, fields.decoders[:6]) for part in (planes, planes[:, :, order])), atol=1e-4)


def test_a_mirrored_field_is_the_field_of_a_mirrored_shape():
    # Planes that hold their own coordinates show where each cell comes from.
    line = torch.linspace(-1, 1, 8)
    column, row = line.expand(8, 8), line[:, None].expand(8, 8)
    planes = torch.stack([torch.stack([column, row, torch.ones(8, 8)])] * 3)[None].expand(64, -1, -1, -1, -1)
    module = Processor(ProcessorConfig(8, 3, 2, margin=0, mirrored="x", **SMALL)).train()
    torch.manual_seed(0)
    made = module.prepare(planes)
    # x runs along the columns of xy and xz. yz knows nothing of it, so that it tells the sign of the channel.
    slope = made[:, :, 0, 0, -1] - made[:, :, 0, 0, 0]
    turned = slope[:, 0] * slope[:, 2] < 0
    assert 10 < turned.sum() < 54
    assert torch.equal(slope[:, 1] * slope[:, 2] < 0, turned)
    assert (made[:, :, 1, 0, 0] * made[:, :, 1, -1, 0] < 0).all(), "rows run as they did"


def test_a_processor_is_kept_and_refuses_other_fields(fields, tmp_path):
    processor = train_classifier(fields, torch.arange(24), training=Training(epochs=1, batch=12), options=SMALL)
    processor.save_pretrained(tmp_path / "classifier")
    again = TrainedProcessor.from_pretrained(tmp_path / "classifier")
    assert accuracy(again, fields, torch.arange(24)) == accuracy(processor, fields, torch.arange(24))
    again.check(fields)
    for name, value in (("align_corners", False), ("channels", 5), ("resolution", 9)):
        other = TriPlaneConfig(**{**vars(fields.config), name: value})
        with pytest.raises(ArchitectureError, match=f"{name} {value}"):
            again.check(type(fields)(**{**vars(fields), "config": other}))
    with pytest.raises(ArchitectureError, match="planes of another form"):
        again.module(torch.zeros(1, 3, 5, 8, 8), torch.zeros(1, 1))


def test_planes_of_another_order_are_read_and_of_other_corners_refused(zoo, tmp_path):
    mixed = Zoo.create(tmp_path / "zoo")
    first = zoo.load("procedural-0-00003-chair")
    turned = first.architecture.replace(order="yz-xz-xy")
    tensors = {**first.state_dict(), "planes": first.tensor("planes").flip(0)}
    mixed.add([first, type(first)(turned, tensors, first.card)], name=["one", "other"])
    found = read_fields(mixed)
    assert torch.equal(found.planes[0], found.planes[1])
    mixed.add([type(first)(first.architecture.replace(align_corners=False), tensors, first.card)], name=["shifted"])
    with pytest.raises(ArchitectureError, match="several forms.*align_corners"):
        read_fields(mixed)
    with pytest.raises(MissingDataError, match="no fields"):
        read_fields(mixed, "name = 'nobody'")


def test_splits_hold_out_of_each_class(fields):
    train, test = split_in_two(fields)
    assert len(test) == 12 and not set(train.tolist()) & set(test.tolist())
    assert sorted(fields.labels[test].tolist()) == list(range(12))


def test_parts_are_learned(fields):
    everything = torch.arange(24)
    training = Training(epochs=30, batch=8, learning_rate=1e-2)
    processor = train_segmenter(fields, everything, training, options={**SMALL, "part_layers": 1})
    labels = part_labels(fields, everything, 128)
    found = segment(processor, fields.planes, labels.points, fields.labels)
    names = part_names(fields.classes)
    assert all(names[part].startswith(fields.classes[label]) for label, row in zip(fields.labels, found, strict=True)
               for part in row.unique().tolist())  # fmt: skip
    assert (found == labels.parts).double().mean() > 0.5
    perfect = mean_part_iou(labels.parts, labels.parts, fields.labels, fields.classes)
    assert perfect == {"instance": 1.0, "class": 1.0}
    assert mean_part_iou(found, labels.parts, fields.labels, fields.classes)["instance"] < 1
    assert (part_mask(fields.classes) == 0).sum(1).tolist() == [
        len([name for name in names if name.startswith(f"{one}/")]) for one in fields.classes
    ]


def test_a_folder_of_meshes_becomes_a_classified_rendered_zoo(tmp_path, capsys):
    generator = numpy.random.default_rng(0)
    for index in range(5):
        for name, mesh in (("box", trimesh.creation.box(generator.uniform(0.5, 1, 3))),
                           ("ball", trimesh.creation.icosphere(2, generator.uniform(0.5, 1)))):  # fmt: skip
            (tmp_path / "meshes" / name).mkdir(parents=True, exist_ok=True)
            mesh.export(tmp_path / "meshes" / name / f"{index}.obj")
    zoo = str(tmp_path / "zoo")
    small = ["--resolution", "8", "--channels", "4", "--steps", "15", "--points", "128"]
    assert main(["fields", "fit", str(tmp_path / "meshes"), "--out", zoo, "--kind", "sdf", *small]) == 0
    assert "10 fields fitted" in capsys.readouterr().out
    assert main(["fields", "classify", zoo, "--epochs", "5"]) == 0
    assert "on 2 test fields" in capsys.readouterr().out
    assert main(["fields", "render", zoo, "--out", str(tmp_path / "sheet.png"), "--side", "24"]) == 0
    assert "10 fields" in capsys.readouterr().out and (tmp_path / "sheet.png").stat().st_size > 100
    assert main(["fields", "render", zoo, "ball/0", "--out", str(tmp_path / "ball.ply"), "--side", "16"]) == 0
    assert main(["fields", "render", zoo, "--out", str(tmp_path / "all.ply")]) == 1
    assert main(["fields", "segment", zoo, "ball/0", "--out", str(tmp_path / "parts.ply")]) == 1
    assert "procedural" in capsys.readouterr().err

"""The built-in image tasks: scikit-learn's digits, MNIST and CIFAR-10."""

import gzip
import io
import os
import struct
import zipfile
from pathlib import Path

import numpy

from weightgen.errors import CorruptFileError, MissingDataError
from weightgen.tasks.task import Arrays, Preprocessing, Task, register_task

NUMERALS = tuple("0123456789")


def _split(images: numpy.ndarray, labels: numpy.ndarray, seed: int, sizes: tuple[int, int]) -> tuple:
    """A fixed shuffle cut into a first part and a rest; `RandomState` never changes its stream."""
    order = numpy.random.RandomState(seed).permutation(len(labels))
    images, labels = images[order], labels[order]
    cut = sizes[0]
    return (images[:cut], labels[:cut]), (images[cut:], labels[cut:])


@register_task("digits")
def digits() -> Task:
    """1,797 handwritten digits of 8 × 8 pixels, part of scikit-learn: 1,097 / 200 / 500 images.

    Shown as dark ink on bright paper, against MNIST's bright ink on a dark ground: a network of one task is then at
    chance on the other (measured: below 10 %, and 20 to 29 % with equal ink), which gives controls their meaning.
    """

    def load() -> Arrays:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = bunch.images.astype(numpy.uint8)[:, None]
        labels = bunch.target.astype(numpy.int64)
        rest, test = _split(images, labels, 0, (1297, 500))
        train, validation = _split(*rest, 1, (1097, 200))
        return {"train": train, "validation": validation, "test": test}

    return Task("digits", (1, 8, 8), NUMERALS, Preprocessing(16.0, 0.305, -0.376), load)


@register_task("mnist")
def mnist() -> Task:
    """70,000 handwritten digits of 28 × 28 pixels: 55,000 / 5,000 / 10,000 images.

    Read from the four idx files of `$WEIGHTGEN_DATA/mnist`, else from torchvision's download.
    """

    def load() -> Arrays:
        folder = _mnist_folder()
        images, labels = (_read_idx(folder, f"train-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
        train, validation = _split(images[:, None], labels.astype(numpy.int64), 0, (55_000, 5_000))
        test_images, test_labels = (
            _read_idx(folder, f"t10k-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
        )
        test = test_images[:, None], test_labels.astype(numpy.int64)
        return {"train": train, "validation": validation, "test": test}

    return Task("mnist", (1, 28, 28), NUMERALS, Preprocessing(255.0, 0.1307, 0.3081), load)


OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@register_task("cifar10")
def cifar10() -> Task:
    """60,000 colour photographs of 32 × 32 pixels: 45,000 / 5,000 / 10,000 images.

    Read from `$WEIGHTGEN_DATA/cifar10_jpg.zip`, a folder a class under `train/` and `test/`. JPEG loses detail: figures
    on it are lower than on the original (ResNet-20: 81.0 % for 91.7 %), and compare only with one another.
    """

    def load() -> Arrays:
        path = _data("cifar10_jpg.zip", "CIFAR-10")
        with zipfile.ZipFile(path) as archive:
            members = {"train": [], "test": []}
            for name in sorted(archive.namelist()):
                split, _, rest = name.partition("/")
                kind = rest.partition("/")[0]
                if split in members and kind in OBJECTS and name.endswith(".jpg"):
                    members[split].append((name, OBJECTS.index(kind)))
            found = {split: _photographs(archive, path, named) for split, named in members.items()}
        train, validation = _split(*found["train"], 0, (45_000, 5_000))
        return {"train": train, "validation": validation, "test": found["test"]}

    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Task("cifar10", (3, 32, 32), OBJECTS, Preprocessing(255.0, mean, deviation), load)


def _photographs(archive: zipfile.ZipFile, path: Path, named: list[tuple[str, int]]) -> tuple:
    """Images uint8 `[n, 3, 32, 32]` and labels int64 `[n]`."""
    from PIL import Image

    images = numpy.empty((len(named), 3, 32, 32), numpy.uint8)
    for index, (name, _) in enumerate(named):
        try:
            with Image.open(io.BytesIO(archive.read(name)), formats=["JPEG"]) as image:
                pixels = numpy.asarray(image.convert("RGB") if image.size == (32, 32) else ())
        except (OSError, zipfile.BadZipFile) as error:
            raise CorruptFileError(f"cannot read {name} ({error})", where=path, remedy="fetch it again") from error
        if pixels.shape != (32, 32, 3):
            raise CorruptFileError(f"{name} is not of 32 × 32 pixels", where=path, remedy="fetch it again")
        images[index] = pixels.transpose(2, 0, 1)
    return images, numpy.array([label for _, label in named], numpy.int64)


def _data(name: str, title: str) -> Path:
    path = Path(os.environ.get("WEIGHTGEN_DATA", "")) / name
    if not os.environ.get("WEIGHTGEN_DATA") or not zipfile.is_zipfile(path):
        raise MissingDataError(
            f"{title} is not there", where=path, expected="a zip file with a folder a class under train/ and test/",
            remedy=f"set WEIGHTGEN_DATA to the folder that holds {name}",
        )  # fmt: skip
    return path


def _mnist_folder() -> Path:
    data = os.environ.get("WEIGHTGEN_DATA")
    if data:
        folder = Path(data) / "mnist"
        if not folder.is_dir():
            raise MissingDataError(
                "MNIST is not there",
                where=folder,
                expected="the four idx files, plain or .gz",
                remedy="put them there, or unset WEIGHTGEN_DATA to let torchvision download them",
            )
        return folder
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "weightgen"
    try:
        from torchvision.datasets import MNIST

        MNIST(str(cache), train=True, download=True)
    except Exception as error:
        raise MissingDataError(
            f"MNIST is not on this machine and its download failed ({type(error).__name__})",
            where=cache,
            remedy="set WEIGHTGEN_DATA to a folder with mnist/train-images-idx3-ubyte.gz and its three companions",
        ) from error
    return cache / "MNIST" / "raw"


def _read_idx(folder: Path, name: str) -> numpy.ndarray:
    """One idx file, checked against its header before its bytes are used."""
    plain, packed = folder / name, folder / f"{name}.gz"
    path, opened = (plain, open) if plain.is_file() else (packed, gzip.open)
    if not path.is_file():
        raise MissingDataError(f"{name} is missing", where=folder, expected=f"{name} or {name}.gz")
    axes = int(name.split("idx")[1][0])
    try:
        with opened(path, "rb") as file:
            header = file.read(4 + 4 * axes)
            zero, kind, found, *shape = struct.unpack(f">HBB{axes}I", header)
            content = file.read()
    except (OSError, EOFError, struct.error) as error:
        raise CorruptFileError(f"cannot read the idx file ({error})", where=path, remedy="fetch it again") from error
    size = int(numpy.prod(shape, dtype=numpy.int64))
    if (zero, kind, found) != (0, 8, axes) or len(content) != size:
        raise CorruptFileError(
            "not a whole idx file",
            where=path,
            got=f"{len(content):,} bytes",
            expected=f"{size:,}",
            remedy="fetch it again",
        )
    return numpy.frombuffer(content, dtype=numpy.uint8).reshape(shape)

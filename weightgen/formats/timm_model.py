"""Models of timm: folders with timm's config, and pretrained models by name such as `timm/resnet18.a1_in1k`."""

from pathlib import Path

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint
from weightgen.errors import MissingDataError
from weightgen.formats.format import Network, register
from weightgen.formats.huggingface import config_of, weights, weights_file
from weightgen.formats.tensors import facts, made_with, network
from weightgen.registry import unknown_name


def _recognises(path: Path, head: bytes) -> bool:
    if head or not path.is_dir() or weights_file(path) is None:
        return False
    config = config_of(path)
    return isinstance(config.get("architecture"), str) and "model_type" not in config


@register("timm", "timm folder", _recognises)
def read(path: Path) -> list[Network]:
    """The one model of a folder, or of a name `timm/…` that is no path."""
    if not path.exists():
        return [Network("", download(path.as_posix().removeprefix("timm/")))]
    config = config_of(path)
    options = {
        key: value for key, value in (config.get("model_args") or {}).items() if isinstance(value, (str, int, float))
    }
    if isinstance(config.get("num_classes"), int):
        options["num_classes"] = config["num_classes"]
    architecture = Architecture.of(f"timm/{config['architecture']}", **options)
    card = Card(origin="ingested", hyperparameters=facts(config), made_with=made_with("timm", path))
    kinds, read_one, pieces = weights(path)
    return [Network("", network(kinds, read_one, card, path, architecture, pieces))]


def download(name: str) -> Checkpoint:
    """A pretrained model of timm by its name; timm fetches it or finds it in its cache.

    Raises:
        UnknownNameError: if timm has no such model.
        MissingDataError: if it cannot be fetched.
    """
    import timm

    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise unknown_name("timm model", base, timm.list_models())
    if tag and name not in timm.list_pretrained(f"{base}.*"):
        raise unknown_name("pretrained timm model", name, timm.list_pretrained(f"{base}.*"))
    try:
        module = timm.create_model(name, pretrained=True)
    except Exception as error:
        raise MissingDataError(
            f"the timm model '{name}' cannot be fetched",
            got=f"{type(error).__name__}",
            remedy="fetch its folder on a machine with a network and give the folder",
        ) from error
    settings = facts({"pretrained": name, **vars(module).get("pretrained_cfg", {})})
    card = Card(origin="ingested", hyperparameters=settings, made_with={"format": "timm", "model": name})
    return Checkpoint(Architecture.of(f"timm/{base}"), module.state_dict(), card)

"""Models of transformers and diffusers as recipes: `transformers/BertModel?hidden_size=8`, `diffusers/UNet2DModel?…`.

The options are those entries of the model's config that differ from its defaults, nested ones with dots. A recipe may
come from a hostile file: it opens no file, fetches nothing and runs no code but that of the named model's class.
"""

import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from weightgen.errors import ArchitectureError
from weightgen.registry import unknown_name

if TYPE_CHECKING:
    from torch import Tensor, nn

FAMILIES = ("transformers/", "diffusers/")

FORBIDDEN = re.compile(
    r".*(path|pretrained|backbone|file|checkpoint|repo|remote|auto_map|weights|cache|url|token\b).*", re.IGNORECASE
)
"""Options that could name files, downloads or code."""

MAXIMUM_LAYERS = 1000
"""Layers, blocks and the like; more take long to build even without memory."""

Scalar = bool | int | float | str


def build(family: str, options: Mapping[str, Any]) -> "nn.Module":
    """A fresh module of a recipe's family and options.

    Raises:
        UnknownNameError: if the library has no such model.
        ArchitectureError: if an option is not allowed, or the library is not installed.
    """
    library, _, name = family.partition("/")
    check(options)
    model = _model(library, name)
    if library == "diffusers":
        return model(**_arguments(model, options))
    try:
        config = model.config_class(**_nested(options))
    except Exception as error:
        # A config refuses what does not fit together by errors of its own.
        raise ArchitectureError("the options do not fit one another", where=family, got=str(error)) from error
    if name.startswith("Timm") or getattr(config, "backbone", None) or getattr(config, "use_pretrained_backbone", None):
        raise ArchitectureError("a model that fetches another one", where=family)
    return model(config)


def examples(module: Any) -> "tuple[Tensor, ...]":
    """What a model of transformers reads, a few tokens or one image, all zeros; it is told to keep nothing.

    Raises:
        ArchitectureError: for a model that reads something else, or more.
    """
    import torch

    config = module.config
    # What a model keeps for its next call is no answer, and not traced.
    config.use_cache = False
    if module.main_input_name == "input_ids" and not config.is_encoder_decoder:
        return (torch.zeros(1, min(8, getattr(config, "max_position_embeddings", 8)), dtype=torch.int64),)
    size, channels = getattr(config, "image_size", None), getattr(config, "num_channels", None)
    if module.main_input_name == "pixel_values" and isinstance(size, int) and isinstance(channels, int):
        return (torch.zeros(1, channels, size, size),)
    raise ArchitectureError("what the network reads is not known", where=type(module).__name__)


def recipe_options(library: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The family of a saved config and the options in which it differs from the defaults.

    Raises:
        UnknownNameError: if the library has no such model.
    """
    if library == "diffusers":
        name = config.get("_class_name")
        parameters = inspect.signature(_model(library, str(name)).__init__).parameters
        defaults = {each: one.default for each, one in parameters.items()}
        given = {each: value for each, value in config.items() if each in defaults}
    else:
        name = (config.get("architectures") or [None])[0]
        made = _model(library, str(name)).config_class.from_dict(dict(config))
        given, defaults = _flat(made.to_dict()), _flat(type(made)().to_dict())
    options = {}
    for each, value in given.items():
        value = tuple(value) if isinstance(value, list) else value
        default = defaults.get(each)
        if value is None or value == (tuple(default) if isinstance(default, list) else default):
            continue
        if FORBIDDEN.fullmatch(each) or each in _NOTHING or not _writable(value):
            continue
        options[each] = ",".join(value) if isinstance(value, tuple) and isinstance(value[0], str) else value
    return f"{library}/{name}", options


_NOTHING = {"transformers_version", "architectures", "model_type", "dtype", "torch_dtype", "_name_or_path", "id2label"}
"""Entries of a config that no tensor depends on."""


def check(options: Mapping[str, Any]) -> None:
    """Refuses options that a recipe must not have.

    Raises:
        ArchitectureError: for those.
    """
    for name, value in options.items():
        if FORBIDDEN.fullmatch(name):
            raise ArchitectureError(
                "an architecture names no files or downloads", got=f"the option '{name}'", remedy="leave it out"
            )
        many = re.search(r"(layers|depths?|blocks|stages)(_per_\w+)?$", name)
        numbers = value if isinstance(value, tuple) else (value,)
        if many and any(isinstance(one, int) and one > MAXIMUM_LAYERS for one in numbers):
            raise ArchitectureError("a size is beyond all bounds", where=name, got=value, expected=MAXIMUM_LAYERS)


def _model(library: str, name: str) -> Any:
    """The class of a model, if it is one."""
    try:
        if library == "transformers":
            import transformers as module
            from transformers import PreTrainedModel as base
        else:
            import diffusers as module
            from diffusers.models.modeling_utils import ModelMixin as base
    except ImportError as error:
        raise ArchitectureError(
            f"{library} is not installed", where=name, remedy=f"install it: pip install {library}"
        ) from error
    found = getattr(module, name, None) if re.fullmatch(r"[A-Z]\w{1,100}", name) else None
    if not isinstance(found, type) or not issubclass(found, base) or found is base:
        raise unknown_name(f"{library} model", name, [each for each in dir(module) if each.endswith("Model")])
    return found


def _arguments(model: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as a diffusers model takes them: a text with commas is a tuple where one belongs."""
    parameters = inspect.signature(model.__init__).parameters
    found = {}
    for name, value in options.items():
        default = parameters[name].default if name in parameters else None
        if isinstance(default, (tuple, list)) and not isinstance(value, tuple):
            value = tuple(value.split(",")) if isinstance(value, str) else (value,)
        found[name] = value
    return found


def _nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """`{"text_config.hidden_size": 8}` as `{"text_config": {"hidden_size": 8}}`."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        *path, last = name.split(".")
        place = found
        for part in path:
            place = place.setdefault(part, {})
        place[last] = list(value) if isinstance(value, tuple) else value
    return found


def _flat(values: Mapping[str, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and depth < 4:
            found.update(_flat(value, f"{prefix}{name}.", depth + 1))
        else:
            found[f"{prefix}{name}"] = value
    return found


def _writable(value: Any) -> bool:
    """Whether a value can stand in a recipe."""
    if isinstance(value, tuple):
        texts = all(isinstance(one, str) and re.fullmatch(r"\w+", one) for one in value)
        return bool(value) and (texts or all(type(one) is int for one in value))
    return isinstance(value, (bool, int, float)) or (isinstance(value, str) and bool(re.fullmatch(r"[\w./-]+", value)))

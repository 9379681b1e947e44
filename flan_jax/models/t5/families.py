"""The published T5 families, and which of them a network belongs to.

Sizes and other numbers are those of the shipped files `gin_configs/models/<family>/<size>.gin`, which are read here as
data: neither gin nor JAX is needed.
"""

import ast
import dataclasses
import functools
import re
from pathlib import Path
from typing import Any, final

from flan_jax.models.t5.config import T5Config

_ROOT = Path(__file__).resolve().parents[3]  # It has the folder `gin_configs`.
_INCLUDE = re.compile(r"^include '(.+)'$", re.MULTILINE)
_BINDING = re.compile(r"^config\.T5Config\.(\w+) = (.+)$", re.MULTILINE)
_NUMERICS = ("relpos_buckets", "relpos_max_distance", "layer_norm_epsilon")  # Equal in all published families.
_USUAL = {field.name: field.default for field in dataclasses.fields(T5Config)}
_SIZES = ("emb_dim", "num_heads", "head_dim", "mlp_dim", "num_encoder_layers", "num_decoder_layers", "vocab_size")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """Models that were published together.

    Attributes:
      name: The folder in `gin_configs/models`.
      title: The name for display.
      sizes: The published sizes, which are names of gin files.
      absent_in_t5x: Parameters that checkpoints of its T5X network lack, because they were never trained: ones.
    """

    name: str
    title: str
    sizes: tuple[str, ...] = ("small", "base", "large", "xl", "xxl")
    absent_in_t5x: tuple[str, ...] = ()

    def gin_file(self, size: str) -> str:
        """Returns the shipped file of one of its sizes."""
        return f"gin_configs/models/{self.name}/{size}.gin"

    def config(self, size: str) -> T5Config:
        """Returns the network of one of its sizes."""
        return config_of_gin_file(self.gin_file(size))

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table, which are more than the vocabulary has ids."""
        return self.config(self.sizes[0]).vocab_size

    def has_network_of(self, config: T5Config) -> bool:
        """Returns whether a network differs from the family's only in sizes."""
        return _traits(self.config(self.sizes[0])) == _traits(config)


# UL2's decoder ends in a norm without a scale (its T5X gin file: `use_scale = False`); Hugging Face stores ones.
_UL2_ABSENT = ("decoder/decoder_norm/scale",)

FAMILIES: tuple[Family, ...] = (
    Family(name="t5_1_0", title="T5 1.0", sizes=("small", "base", "large", "3b", "11b")),  # 1910.10683
    Family(name="t5_1_1", title="T5 1.1"),  # 2002.05202
    Family(name="lm_adapted", title="LM-adapted"),  # 2104.08691
    Family(name="flan_t5", title="Flan-T5"),  # 2210.11416
    Family(name="mt5", title="mT5"),  # 2010.11934
    Family(name="umt5", title="umT5", sizes=("small", "base", "xl", "xxl")),  # 2304.09151; large was never released
    Family(name="byt5", title="ByT5"),  # 2105.13626
    Family(name="ul2", title="UL2", sizes=("20b",), absent_in_t5x=_UL2_ABSENT),  # 2205.05131
    Family(name="flan_ul2", title="Flan-UL2", sizes=("20b",), absent_in_t5x=_UL2_ABSENT),
)


@functools.cache
def config_of_gin_file(file: str) -> T5Config:
    """Returns the network of a shipped model file, whose bindings of T5Config are literals.

    >>> config_of_gin_file("gin_configs/models/mt5/small.gin").vocab_size
    250112
    """
    return T5Config(**_bindings(file))


def _bindings(file: str) -> dict[str, Any]:
    text = (_ROOT / file).read_text()
    bindings: dict[str, Any] = {}
    for included in _INCLUDE.findall(text):
        bindings |= _bindings(included)
    return bindings | {name: ast.literal_eval(value) for name, value in _BINDING.findall(text)}


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Recognized:
    """The published families that match a network's sizes.

    Attributes:
      title: For display: "T5 1.1, LM-adapted or Flan-T5".
      families: Those with this network and vocabulary size; empty where none was published.
      gin_file: The shipped file with these numbers; None where there is none.
    """

    title: str
    families: tuple[Family, ...]
    gin_file: str | None


def recognize(config: T5Config) -> Recognized:
    """Returns the published families that have the network of `config`, several where they share it.

    >>> found = recognize(config_of_gin_file("gin_configs/models/flan_t5/small.gin"))
    >>> found.title, found.gin_file
    ('T5 1.1, LM-adapted or Flan-T5', 'gin_configs/models/t5_1_1/small.gin')
    """
    alike = [family for family in FAMILIES if family.has_network_of(config)]
    families = tuple(family for family in alike if family.vocab_size == config.vocab_size)
    if families:
        title = _either([family.title for family in families])
    elif alike:
        title = f"the network of {alike[0].title} with a table of {config.vocab_size} rows"
    else:
        title = "a T5 of no published family"
    if config.decoder_outputs_are_scaled != config.logits_via_embedding:
        title += f", decoder outputs {'scaled' if config.decoder_outputs_are_scaled else 'not scaled'}"
    # The first file in the order of publication: T5 1.1, LM-adapted and Flan-T5 share their sizes.
    files = (family.gin_file(size) for family in families for size in family.sizes)
    gin_file = next((file for file in files if _sizes(config_of_gin_file(file)) == _sizes(config)), None)
    return Recognized(title=title, families=families, gin_file=gin_file)


def describe(config: T5Config) -> str:
    """Returns a line that distinguishes a network from others.

    >>> describe(config_of_gin_file("gin_configs/models/t5_1_1/small.gin")).partition(": ")[2]
    'emb_dim 512, 6 heads of 64, mlp_dim 1024, 8+8 layers, vocab_size 32128'
    """
    kind, first = ("plain" if len(config.mlp_activations) == 1 else "gated"), config.mlp_activations[0]
    logits = "tied" if config.logits_via_embedding else "untied"
    bias = ", a bias table in each layer" if config.relpos_bias_per_layer else ""
    other = "".join(
        f", {field} {getattr(config, field)}" for field in _NUMERICS if getattr(config, field) != _USUAL[field]
    )
    return (
        f"{recognize(config).title} ({kind} {first}, {logits} logits{bias}): emb_dim {config.emb_dim}, "
        f"{config.num_heads} "
        f"heads of {config.head_dim}, mlp_dim {config.mlp_dim}, "
        f"{config.num_encoder_layers}+{config.num_decoder_layers} "
        f"layers, vocab_size {config.vocab_size}{other}"
    )


def _traits(config: T5Config) -> tuple[Any, ...]:
    activations = tuple("silu" if name == "swish" else name for name in config.mlp_activations)  # "swish" in T5X
    numerics = (getattr(config, field) for field in _NUMERICS)
    return activations, config.logits_via_embedding, config.relpos_bias_per_layer, *numerics


def _sizes(config: T5Config) -> tuple[int, ...]:
    return tuple(getattr(config, field) for field in _SIZES)


def _either(titles: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(titles[:-1]), titles[-1]]))

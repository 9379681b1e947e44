"""Names and shapes of a T5's parameters, from a config and back. Independent of JAX.

Checkpoints are opened, converted and refused by them; a test compares them with the network's own. Names are T5X's,
joined by "/".
"""

import re
from collections import Counter
from collections.abc import Mapping

from flan_jax.errors import UserError
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.families import describe, recognize

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_SHOWN = 12
_LAYER = re.compile(r"(encoder|decoder)/layers_(\d+)/")
_TABLE = "token_embedder/embedding"
_LOGITS = "decoder/logits_dense/kernel"


def parameter_shapes(config: T5Config) -> dict[str, Shape]:
    """Returns the shape of every parameter, by name.

    >>> tiny = T5Config(emb_dim=8, num_heads=2, head_dim=3, mlp_dim=16, num_encoder_layers=1, num_decoder_layers=1)
    >>> shapes = parameter_shapes(tiny)
    >>> shapes["encoder/layers_0/attention/out/kernel"], shapes["decoder/relpos_bias/rel_embedding"]
    ((6, 8), (2, 32))
    """
    stacks = {"encoder": config.num_encoder_layers, "decoder": config.num_decoder_layers}
    shapes: dict[str, Shape] = {_TABLE: (config.vocab_size, config.emb_dim)}
    for stack, layers in stacks.items():
        if not config.relpos_bias_per_layer:
            shapes[f"{stack}/relpos_bias/rel_embedding"] = (config.num_heads, config.relpos_buckets)
        for layer in range(layers):
            for name, shape in _layer_shapes(config, stack).items():
                shapes[f"{stack}/layers_{layer}/{name}"] = shape
        shapes[f"{stack}/{stack}_norm/scale"] = (config.emb_dim,)
    if not config.logits_via_embedding:
        shapes[_LOGITS] = (config.emb_dim, config.vocab_size)
    return shapes


def config_of_shapes(shapes: Shapes) -> T5Config:
    """Returns the network whose parameters have these shapes.

    Activations, which shapes do not determine, are those of the published families: one kernel before the activation
    means relu, two mean a gated gelu, or a gated silu if the logits are tied, as in UL2. `dropout_rate` and `dtype` are
    the defaults.

    Raises:
      UserError: No T5 has them; lists the leaves that do not fit the nearest one.
    """
    config = _nearest_config(shapes)
    expected = parameter_shapes(config)
    lines = _misfits(shapes, expected)
    if lines:
        # Another size of one kind is not a missing part: the two have different causes.
        what = (
            "The shapes of these parameters contradict each other."
            if shapes.keys() == expected.keys()
            else "These are not the parameters of a complete T5."
        )
        raise UserError(f"{what} The nearest is {describe(config)}.\n{_listed(lines)}")
    return config


def require_shapes(shapes: Shapes, config: T5Config, *, place: str) -> None:
    """Refuses parameters that are not those of `config`.

    Args:
      shapes: The checkpoint's shapes by name.
      config: The model.
      place: The checkpoint's path, for the message.

    Raises:
      UserError: Names or shapes differ; lists them, with the family that the checkpoint looks like.
    """
    lines = _misfits(shapes, parameter_shapes(config))
    if not lines:
        return
    fix = "Use the model that it was trained as, or another checkpoint."
    try:
        nearest = _nearest_config(shapes)
    except UserError as error:
        looks = str(error)
    else:
        looks = f"It looks like {describe(nearest)}."
        file = recognize(nearest).gin_file
        if file is not None and not _misfits(shapes, parameter_shapes(nearest)):
            fix = f"Include {file}, which has its sizes, or use another checkpoint."
    raise UserError(f"{place} does not fit the model, which is {describe(config)}.\n{looks}\n{_listed(lines)}{fix}")


def _layer_shapes(config: T5Config, stack: str) -> dict[str, Shape]:
    """Returns the shapes of one layer's parameters, by their names in it."""
    embed, joined = config.emb_dim, config.num_heads * config.head_dim
    attentions = {
        "encoder": {"attention": "pre_attention_layer_norm"},
        "decoder": {
            "self_attention": "pre_self_attention_layer_norm",
            "encoder_decoder_attention": "pre_cross_attention_layer_norm",
        },
    }[stack]
    shapes: dict[str, Shape] = {}
    if config.relpos_bias_per_layer:
        shapes["relpos_bias/rel_embedding"] = (config.num_heads, config.relpos_buckets)
    for attention, norm in attentions.items():
        shapes[f"{norm}/scale"] = (embed,)
        shapes |= {f"{attention}/{name}/kernel": (embed, joined) for name in ("query", "key", "value")}
        shapes[f"{attention}/out/kernel"] = (joined, embed)
    shapes["pre_mlp_layer_norm/scale"] = (embed,)
    branches = len(config.mlp_activations)
    names = ["wi"] if branches == 1 else [f"wi_{i}" for i in range(branches)]
    shapes |= {f"mlp/{name}/kernel": (embed, config.mlp_dim) for name in names}
    shapes["mlp/wo/kernel"] = (config.mlp_dim, embed)
    return shapes


def _nearest_config(shapes: Shapes) -> T5Config:
    """Returns the T5 that most leaves fit; refuses leaves that lack one kind entirely."""
    layers = {"encoder": 0, "decoder": 0}
    for match in filter(None, map(_LAYER.match, shapes)):
        # By the highest number, so that a missing layer is listed as missing.
        layers[match[1]] = max(layers[match[1]], int(match[2]) + 1)
    for stack, count in layers.items():
        if not count:
            raise UserError(f"These are not the parameters of a complete T5: there is no leaf under {stack}/layers_0.")
    # The most frequent shape of a kind decides, so that one damaged leaf is listed as such and the others still fit.
    vocab_size, _ = _most_frequent(shapes, _TABLE, rank=2)
    (emb_dim,) = _most_frequent(shapes, r".*_norm/scale", rank=1)
    heads, buckets = _most_frequent(shapes, r".*relpos_bias/rel_embedding", rank=2)
    _, joined = _most_frequent(shapes, r".*/(query|key|value)/kernel", rank=2)
    _, mlp_dim = _most_frequent(shapes, r".*/mlp/wi(_\d+)?/kernel", rank=2)
    if not heads or joined % heads:
        raise UserError(
            f"These are not the parameters of a T5: its query kernels have {joined} columns, which the {heads} heads "
            "of "
            f"relpos_bias/rel_embedding do not divide."
        )
    tied = _LOGITS not in shapes
    branches = {match[1] for match in (re.search(r"/mlp/(wi_\d+)/kernel$", name) for name in shapes) if match}
    # UL2 is the only published family with gated layers and tied logits.
    gated = ("silu" if tied else "gelu", *("linear",) * (len(branches) - 1))
    return T5Config(
        vocab_size=vocab_size,
        emb_dim=emb_dim,
        num_heads=heads,
        head_dim=joined // heads,
        mlp_dim=mlp_dim,
        num_encoder_layers=layers["encoder"],
        num_decoder_layers=layers["decoder"],
        mlp_activations=gated if branches else ("relu",),
        logits_via_embedding=tied,
        relpos_bias_per_layer=any(re.search(r"layers_\d+/relpos_bias/", name) for name in shapes),
        relpos_buckets=buckets,
    )


def _most_frequent(shapes: Shapes, pattern: str, *, rank: int) -> Shape:
    """Returns the most frequent shape among the leaves with a matching name and number of dimensions."""
    counts = Counter(s for name, s in shapes.items() if re.fullmatch(pattern, name) and len(s) == rank)
    if not counts:
        kind = pattern.replace(".*", "...").replace(r"(_\d+)?", "")
        raise UserError(
            f"These are not the parameters of a complete T5: there is no leaf {kind} with {rank} "
            f"dimension{'s' * (rank > 1)}."
        )
    return counts.most_common(1)[0][0]


def _misfits(shapes: Shapes, expected: Shapes) -> list[str]:
    """Returns a line for every leaf that has another shape, is missing, or is not expected."""
    other = [
        f"{n}: got {_formatted(s)}, expected {_formatted(expected[n])}"
        for n, s in shapes.items()
        if expected.get(n, s) != s
    ]
    missing = [f"{n}: missing, expected {_formatted(s)}" for n, s in expected.items() if n not in shapes]
    extra = [f"{n}: got {_formatted(s)}, expected no leaf of this name" for n, s in shapes.items() if n not in expected]
    return [*other, *missing, *extra]


def _listed(lines: list[str]) -> str:
    rest = [f"and {len(lines) - _SHOWN} more leaves"] if len(lines) > _SHOWN else []
    return "".join(f"  {line}\n" for line in [*lines[:_SHOWN], *rest])


def _formatted(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"

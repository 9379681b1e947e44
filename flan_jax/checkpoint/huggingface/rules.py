"""Rules between this project's tree and the names of Hugging Face's T5, mT5 and umT5.

Hugging Face transposes each kernel, and stores `shared.weight` under up to four names: one of them is a parameter, and
the others must be copies of it.
"""

import re
from collections.abc import Mapping

from flan_jax.checkpoint.leaves import Leaf, same_values
from flan_jax.checkpoint.mapping import Rule, Transposed
from flan_jax.errors import UserError
from flan_jax.models.t5.config import T5Config

TABLE = "shared.weight"
HEAD = "lm_head.weight"
_OTHER_TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Cross-attention has no bias. Early versions of transformers stored an untrained one, which later versions ignore.
_OBSOLETE = re.compile(r"decoder\.block\.\d+\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight")
# Small blocks, since tables that differ usually differ in the first one.
_COMPARED_BYTES = 2**22


def rules(config: T5Config) -> tuple[Rule, ...]:
    """Returns the rules of a network, in the order in which its tensors are written."""
    head = (
        []
        if config.logits_via_embedding
        else [Rule(ours="decoder/logits_dense/kernel", theirs=HEAD, form=Transposed())]
    )
    return (
        Rule(ours="token_embedder/embedding", theirs=TABLE),
        *_stack(config, "encoder", {"SelfAttention": ("attention", "pre_attention_layer_norm")}),
        *_stack(
            config,
            "decoder",
            {
                "SelfAttention": ("self_attention", "pre_self_attention_layer_norm"),
                "EncDecAttention": ("encoder_decoder_attention", "pre_cross_attention_layer_norm"),
            },
        ),
        *head,
    )


def _stack(config: T5Config, stack: str, attentions: Mapping[str, tuple[str, str]]) -> list[Rule]:
    """Returns the rules of one stack; `attentions` maps Hugging Face's names, in its order, to this project's."""
    ours, theirs = f"{stack}/layers_{{i}}", f"{stack}.block.{{i}}.layer"
    table = []
    for number, (attention, (name, norm)) in enumerate(attentions.items()):
        for projection in ("query", "key", "value", "out"):
            table.append(
                Rule(
                    ours=f"{ours}/{name}/{projection}/kernel",
                    # Named by first letters: q, k, v, o.
                    theirs=f"{theirs}.{number}.{attention}.{projection[0]}.weight",
                    form=Transposed(),
                )
            )
        table.append(Rule(ours=f"{ours}/{norm}/scale", theirs=f"{theirs}.{number}.layer_norm.weight"))
    last = f"{theirs}.{len(attentions)}"
    for name in ("wi", "wo") if len(config.mlp_activations) == 1 else ("wi_0", "wi_1", "wo"):
        wide = f"{last}.DenseReluDense.{name}.weight"
        table.append(Rule(ours=f"{ours}/mlp/{name}/kernel", theirs=wide, form=Transposed()))
    table.append(Rule(ours=f"{ours}/pre_mlp_layer_norm/scale", theirs=f"{last}.layer_norm.weight"))
    # A shared bias is stored in the first layer.
    owner, first = (ours, theirs) if config.relpos_bias_per_layer else (stack, f"{stack}.block.0.layer")
    bias = f"{first}.0.SelfAttention.relative_attention_bias.weight"
    table.append(Rule(ours=f"{owner}/relpos_bias/rel_embedding", theirs=bias, form=Transposed()))
    return [*table, Rule(ours=f"{stack}/{stack}_norm/scale", theirs=f"{stack}.final_layer_norm.weight")]


def without_copies(tensors: Mapping[str, Leaf], *, where: str) -> tuple[dict[str, Leaf], list[str]]:
    """Returns the tensors with one embedding table and without obsolete tensors, and a note on each removed tensor.

    An output layer that is equal to the table bit for bit is the table, as in transformers 5.

    Args:
      tensors: By Hugging Face's names.
      where: The folder, for messages.

    Raises:
      UserError: A copy of the table differs from it.
    """
    remaining, notes = dict(tensors), []
    for name in [name for name in remaining if _OBSOLETE.fullmatch(name)]:
        del remaining[name]
        notes.append(f"{name} is obsolete (no T5 uses it) and is ignored.")
    others = [name for name in _OTHER_TABLES if name in remaining]
    if TABLE not in remaining and others:
        remaining[TABLE] = remaining[others[0]]
        notes.append(f"{TABLE} is absent; {others[0]} is read as the table of both stacks.")
    if TABLE not in remaining:
        return remaining, notes
    for name in others:
        if not _same(remaining[name], remaining[TABLE]):
            raise UserError(
                f"{name} of {where} differs from {TABLE}: the stacks have separate embedding tables, which this "
                "project's T5 does not support."
            )
        # The one that is read as the table itself is no copy.
        if remaining[name] is not remaining[TABLE]:
            notes.append(f"{name} is a copy of {TABLE} and is ignored.")
        del remaining[name]
    if HEAD in remaining and _same(remaining[HEAD], remaining[TABLE]):
        del remaining[HEAD]
        notes.append(f"{HEAD} is a copy of {TABLE}: the logits are tied.")
    return remaining, notes


def _same(a: Leaf, b: Leaf) -> bool:
    return same_values(a, b, max_bytes=_COMPARED_BYTES)

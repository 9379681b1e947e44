"""T5's encoder-decoder (Raffel et al., 1910.10683, section 2.1) in Linen.

The parameter tree is that of T5X's `examples/t5/network.py` (a checkpoint's `target`), name by name and shape by shape;
golden files pin it. With a bias table per layer (umT5) it is that of T5X's `examples/scalable_t5` without scan. Losses,
meshes, optimizers and checkpoints are unknown here; the functions that the rest of the project calls are in
`models.t5.model`.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict
from jaxtyping import Array, Bool, Float, Float32, Int

from flan_jax.models.acceleration.attention import AttentionFunction, MaskedAttention, attention_function
from flan_jax.models.acceleration.layer_stack import run_layers
from flan_jax.models.attention import Attention, Cache, KeysValues
from flan_jax.models.dropout import NO_DROPOUT, DropoutMasks, draw_masks, drop
from flan_jax.models.execution import Execution
from flan_jax.models.initialization import Declaration, declared
from flan_jax.models.layers import Embedding, FeedForward, Kernel, LogitsHead, RMSNorm
from flan_jax.models.partitioning import constrain
from flan_jax.models.position_bias import RelativePositionBias
from flan_jax.models.t5.config import T5Config
from flan_jax.shapes import BATCH_KEYS, Batch, DecoderIds, EncoderIds, Params

DropoutShapes = dict[str, tuple[int, ...]]


def _layer_norm(config: T5Config) -> RMSNorm:
    return RMSNorm(jnp.dtype(config.dtype), epsilon=config.layer_norm_epsilon)


def _relpos_bias(config: T5Config, *, bidirectional: bool) -> RelativePositionBias:
    return RelativePositionBias(
        config.num_heads,
        bidirectional=bidirectional,
        num_buckets=config.relpos_buckets,
        max_distance=config.relpos_max_distance,
    )


def _attention(config: T5Config) -> Attention:
    return Attention(
        num_heads=config.num_heads, head_dim=config.head_dim, emb_dim=config.emb_dim, dtype=jnp.dtype(config.dtype)
    )


def _feed_forward(config: T5Config) -> FeedForward:
    return FeedForward(mlp_dim=config.mlp_dim, activations=config.mlp_activations, dtype=jnp.dtype(config.dtype))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each after a layer norm and with a residual connection around both."""

    config: T5Config

    def setup(self) -> None:
        if self.config.relpos_bias_per_layer:
            self.relpos_bias = _relpos_bias(self.config, bidirectional=True)
        self.pre_attention_layer_norm = _layer_norm(self.config)
        self.attention = _attention(self.config)
        self.pre_mlp_layer_norm = _layer_norm(self.config)
        self.mlp = _feed_forward(self.config)

    def __call__(
        self, x_BSD: Float[Array, "B S D"], *, attend: AttentionFunction, masks: DropoutMasks
    ) -> Float[Array, "B S D"]:
        if self.config.relpos_bias_per_layer:
            attend = attend.with_bias(self.relpos_bias)
        h_BSD = self.pre_attention_layer_norm(x_BSD)
        keys_values = self.attention.keys_values(h_BSD)
        h_BSD = self.attention(h_BSD, keys_values, attend=attend, masks=masks, site="attention")
        # The residual stream itself is never normalized within a stack (pre-norm), hence `encoder_norm` at its end.
        x_BSD = x_BSD + drop(h_BSD, masks, "attention_out")
        h_BSD = self.mlp(self.pre_mlp_layer_norm(x_BSD), masks=masks)
        x_BSD = x_BSD + drop(h_BSD, masks, "mlp_out")
        return constrain(x_BSD, "batch", "sequence", "width")

    @staticmethod
    def dropout_shapes(config: T5Config, *, rows: int, length: int) -> DropoutShapes:
        """Returns the shape of the mask at each site where the layer drops: 1 where positions share it."""
        return {
            "attention": (rows, config.num_heads, 1, length),
            "attention_out": (rows, 1, config.emb_dim),
            "mlp": (rows, 1, config.mlp_dim),
            "mlp_out": (rows, 1, config.emb_dim),
        }


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder's output, and feed-forward."""

    config: T5Config

    def setup(self) -> None:
        if self.config.relpos_bias_per_layer:
            self.relpos_bias = _relpos_bias(self.config, bidirectional=False)
        self.pre_self_attention_layer_norm = _layer_norm(self.config)
        self.self_attention = _attention(self.config)
        self.pre_cross_attention_layer_norm = _layer_norm(self.config)
        self.encoder_decoder_attention = _attention(self.config)
        self.pre_mlp_layer_norm = _layer_norm(self.config)
        self.mlp = _feed_forward(self.config)

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        *,
        encoded_BSD: Float[Array, "B S D"],
        attend: AttentionFunction,
        cross_attend: AttentionFunction,
        masks: DropoutMasks,
    ) -> Float[Array, "B T D"]:
        """Returns the output for every position of a row, as in training."""
        if self.config.relpos_bias_per_layer:
            attend = attend.with_bias(self.relpos_bias)
        # The encoder's output is normalized already, so that the keys' side has no norm of its own here.
        cross = self.encoder_decoder_attention.keys_values(encoded_BSD)
        return self.extend(x_BTD, cross=cross, attend=attend, cross_attend=cross_attend, masks=masks)[0]

    def extend(
        self,
        x_BTD: Float[Array, "B T D"],
        *,
        cross: KeysValues,
        attend: AttentionFunction,
        cross_attend: AttentionFunction,
        masks: DropoutMasks,
        cache: Cache | None = None,
        column: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """Returns the output, and the keys and values that self-attention read.

        Args:
          x_BTD: All positions of a row; with a cache, the candidates of one step.
          cross: Keys and values of the encoder's output.
          attend: Self-attention, its bias bound.
          cross_attend: Attention to the encoder's output.
          masks: Dropout masks.
          cache: Keys and values of earlier steps.
          column: The first column of the cache that this step overwrites.
        """
        h_BTD = self.pre_self_attention_layer_norm(x_BTD)
        keys_values = self.self_attention.keys_values(h_BTD)
        if cache is not None and column is not None:
            keys_values = jax.tree.map(
                lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, column, axis=3), cache, keys_values
            )
        h_BTD = self.self_attention(h_BTD, keys_values, attend=attend, masks=masks, site="self_attention")
        x_BTD = x_BTD + drop(h_BTD, masks, "self_attention_out")
        h_BTD = self.pre_cross_attention_layer_norm(x_BTD)
        h_BTD = self.encoder_decoder_attention(h_BTD, cross, attend=cross_attend, masks=masks, site="cross_attention")
        x_BTD = x_BTD + drop(h_BTD, masks, "cross_attention_out")
        h_BTD = self.mlp(self.pre_mlp_layer_norm(x_BTD), masks=masks)
        x_BTD = x_BTD + drop(h_BTD, masks, "mlp_out")
        return constrain(x_BTD, "batch", "sequence", "width"), keys_values

    @staticmethod
    def dropout_shapes(config: T5Config, *, rows: int, length: int, encoder_length: int) -> DropoutShapes:
        """Returns the shape of the mask at each site where the layer drops: 1 where positions share it."""
        return {
            "self_attention": (rows, config.num_heads, 1, length),
            "self_attention_out": (rows, 1, config.emb_dim),
            "cross_attention": (rows, config.num_heads, 1, encoder_length),
            "cross_attention_out": (rows, 1, config.emb_dim),
            "mlp": (rows, 1, config.mlp_dim),
            "mlp_out": (rows, 1, config.emb_dim),
        }


class Encoder(nn.Module):
    """The stack of layers over the inputs; every position attends to all of its example."""

    config: T5Config
    execution: Execution

    def setup(self) -> None:
        if not self.config.relpos_bias_per_layer:
            self.relpos_bias = _relpos_bias(self.config, bidirectional=True)
        self.layers = [EncoderLayer(self.config) for _ in range(self.config.num_encoder_layers)]
        self.encoder_norm = _layer_norm(self.config)

    def __call__(
        self, x_BSD: Float[Array, "B S D"], segment_ids_BS: EncoderIds, *, deterministic: bool
    ) -> Float[Array, "B S D"]:
        attend = attention_function(segment_ids_BS, segment_ids_BS, implementation=self.execution.attention)
        if not self.config.relpos_bias_per_layer:
            attend = attend.with_bias(self.relpos_bias)
        B, S, _ = x_BSD.shape
        layer_shapes = EncoderLayer.dropout_shapes(self.config, rows=B, length=S)
        masks, layer_masks = _draw_stack_masks(self, layer_shapes, deterministic=deterministic)
        x_BSD = drop(x_BSD, masks, "input")
        x_BSD = run_layers(
            self.layers,
            x_BSD,
            masks=layer_masks,
            logical_axes=lambda: logical_axes(self.config)["encoder"]["layers_0"],
            dtype=jnp.dtype(self.config.dtype),
            execution=self.execution,
            attend=attend,
        )
        # Only T5X draws this mask element by element; the original T5 shares it along the length, like all others.
        return drop(self.encoder_norm(x_BSD), masks, "output")


class Decoder(nn.Module):
    """The stack of layers over the targets, up to the vectors that the logits are computed from."""

    config: T5Config
    execution: Execution

    def setup(self) -> None:
        if not self.config.relpos_bias_per_layer:
            self.relpos_bias = _relpos_bias(self.config, bidirectional=False)
        self.layers = [DecoderLayer(self.config) for _ in range(self.config.num_decoder_layers)]
        self.decoder_norm = _layer_norm(self.config)
        if not self.config.logits_via_embedding:
            # Only declared here: the product is `LogitsHead`'s, which may compute it in chunks.
            self.logits_dense = Kernel((self.config.emb_dim, self.config.vocab_size), ("embed", "vocab"))

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        encoded_BSD: Float[Array, "B S D"],
        segment_ids_BT: DecoderIds,
        example_ids_BT: DecoderIds,
        encoder_segment_ids_BS: EncoderIds,
        *,
        deterministic: bool,
    ) -> Float[Array, "B T D"]:
        implementation = self.execution.attention
        attend = attention_function(segment_ids_BT, segment_ids_BT, causal=True, implementation=implementation)
        if not self.config.relpos_bias_per_layer:
            attend = attend.with_bias(self.relpos_bias)
        cross_attend = attention_function(example_ids_BT, encoder_segment_ids_BS, implementation=implementation)
        (B, T, _), S = x_BTD.shape, encoded_BSD.shape[1]
        layer_shapes = DecoderLayer.dropout_shapes(self.config, rows=B, length=T, encoder_length=S)
        masks, layer_masks = _draw_stack_masks(self, layer_shapes, deterministic=deterministic)
        x_BTD = drop(x_BTD, masks, "input")
        x_BTD = run_layers(
            self.layers,
            x_BTD,
            masks=layer_masks,
            logical_axes=lambda: logical_axes(self.config)["decoder"]["layers_0"],
            dtype=jnp.dtype(self.config.dtype),
            execution=self.execution,
            encoded_BSD=encoded_BSD,
            attend=attend,
            cross_attend=cross_attend,
        )
        return drop(self.decoder_norm(x_BTD), masks, "output")

    def cross_keys_values(self, encoded_BSD: Float[Array, "B S D"]) -> list[KeysValues]:
        """Returns each layer's keys and values of the encoder's output; decoding computes them once."""
        return [layer.encoder_decoder_attention.keys_values(encoded_BSD) for layer in self.layers]

    def step(
        self,
        x_BND: Float[Array, "B N D"],
        *,
        cache: Sequence[Cache],
        cross: Sequence[KeysValues],
        mask_B1NC: Bool[Array, "B 1 N C"],
        cross_mask_B11S: Bool[Array, "B 1 1 S"],
        position: Int[Array, ""],
    ) -> tuple[Float[Array, "B N D"], list[Cache]]:
        """Returns the vectors of one step of N candidates per row, and the cache with their keys and values.

        The C columns of the cache are a ring of C / N positions with N candidates each, and every step writes all
        candidates of one position. T5's bias depends on the distance alone, so that one bias serves rows of any age.
        """
        x_BTD, N, C = x_BND, x_BND.shape[1], cache[0][0].shape[3]

        def bias_of(relpos_bias: RelativePositionBias) -> Float32[Array, "1 H 1 C"]:
            return jnp.repeat(relpos_bias.ring(position, C // N), N, axis=3)

        shared_bias = None if self.config.relpos_bias_per_layer else bias_of(self.relpos_bias)
        new_cache = []
        for layer, layer_cache, layer_cross in zip(self.layers, cache, cross, strict=True):
            bias_1H1C = bias_of(layer.relpos_bias) if shared_bias is None else shared_bias
            x_BTD, layer_cache = layer.extend(
                x_BTD,
                cross=layer_cross,
                attend=MaskedAttention(mask_B1NC, bias_1H1C),
                cross_attend=MaskedAttention(cross_mask_B11S),
                masks=NO_DROPOUT,
                cache=layer_cache,
                column=position * N,
            )
            new_cache.append(layer_cache)
        return self.decoder_norm(x_BTD), new_cache


class Transformer(nn.Module):
    """The complete network over a `flan_jax.shapes.Batch`."""

    config: T5Config
    execution: Execution = Execution()

    def setup(self) -> None:
        config = self.config
        # One table for both stacks, in every T5, also where the logits are untied.
        self.token_embedder = Embedding(config.vocab_size, config.emb_dim, jnp.dtype(config.dtype))
        self.encoder = Encoder(config, self.execution)
        self.decoder = Decoder(config, self.execution)

    def __call__(self, batch: Batch, *, deterministic: bool) -> tuple[Float[Array, "B T D"], LogitsHead]:
        """Returns the decoder's vectors of every position, given the true previous tokens, and the output layer."""
        encoded_BSD = self.encode(batch, deterministic=deterministic)
        return self.decode(encoded_BSD, batch, deterministic=deterministic), self.head()

    def encode(self, batch: Batch, *, deterministic: bool) -> Float[Array, "B S D"]:
        """Returns the encoder's output."""
        x_BSD = self.token_embedder(batch["encoder_input_tokens"])
        return self.encoder(x_BSD, batch["encoder_segment_ids"], deterministic=deterministic)

    def decode(self, encoded_BSD: Float[Array, "B S D"], batch: Batch, *, deterministic: bool) -> Float[Array, "B T D"]:
        """Returns the decoder's vectors of every position, given the true previous tokens."""
        return self.decoder(
            self.token_embedder(batch["decoder_input_tokens"]),
            encoded_BSD,
            batch["decoder_segment_ids"],
            batch.get("decoder_example_ids", batch["decoder_segment_ids"]),
            batch["encoder_segment_ids"],
            deterministic=deterministic,
        )

    def head(self) -> LogitsHead:
        """Returns the output layer."""
        config = self.config
        # Tied logits: the table has unit variance, so the product has variance D. Divided after the product, as in T5X.
        divisor = float(np.sqrt(config.emb_dim)) if config.decoder_outputs_are_scaled else 1.0
        is_tied = config.logits_via_embedding
        table = self.token_embedder.embedding if is_tied else self.decoder.logits_dense.kernel
        return LogitsHead(table=table, is_tied=is_tied, divisor=divisor)

    def decode_step(
        self,
        tokens_BN: Int[Array, "B N"],
        *,
        cache: Sequence[Cache],
        cross: Sequence[KeysValues],
        mask_B1NC: Bool[Array, "B 1 N C"],
        cross_mask_B11S: Bool[Array, "B 1 1 S"],
        position: Int[Array, ""],
    ) -> tuple[Float32[Array, "B N V"], list[Cache]]:
        """Returns the logits of the tokens after `tokens_BN`, and the updated cache; see `Decoder.step`."""
        x_BND, new_cache = self.decoder.step(
            self.token_embedder(tokens_BN),
            cache=cache,
            cross=cross,
            mask_B1NC=mask_B1NC,
            cross_mask_B11S=cross_mask_B11S,
            position=position,
        )
        return self.head().logits(x_BND), new_cache


def _draw_stack_masks(
    stack: Encoder | Decoder, layer_shapes: DropoutShapes, *, deterministic: bool
) -> tuple[DropoutMasks, list[DropoutMasks]]:
    """Returns the masks at the stack's input and output, and those of each layer."""
    config, layers = stack.config, len(stack.layers)
    if deterministic or config.dropout_rate == 0.0:
        return NO_DROPOUT, [NO_DROPOUT] * layers
    end = layer_shapes["mlp_out"]
    drawn = draw_masks(
        stack.make_rng("dropout"),
        {"ends": {"input": end, "output": end}, "layers": [layer_shapes] * layers},
        rate=config.dropout_rate,
        dtype=jnp.dtype(config.dtype),
    )
    return drawn["ends"], drawn["layers"]


def logical_axes(config: T5Config) -> Params:
    """Returns the tree of logical axis names, one tuple per parameter: ("embed", "mlp") and the like."""
    return unflatten_dict({name: each.axes for name, each in declarations(config).items()}, sep="/")


@functools.lru_cache(maxsize=8)
def declarations(config: T5Config) -> Mapping[str, Declaration]:
    """Returns shape, axes and initializer of every parameter, by names such as "encoder/encoder_norm/scale"."""
    # The layers of a stack are alike, so a network with one of each is traced: faster for deep ones.
    smallest = dataclasses.replace(config, num_encoder_layers=1, num_decoder_layers=1)
    batch = {key: jnp.zeros((1, 1), jnp.int32) for key in BATCH_KEYS}
    # No parent: `run_layers` asks for a layer's axes while another module is being traced.
    one_of_each = declared(Transformer(smallest, parent=None), batch, deterministic=True)
    layers = {"encoder": config.num_encoder_layers, "decoder": config.num_decoder_layers}
    return {
        name.replace("/layers_0/", f"/layers_{layer}/"): each
        for name, each in one_of_each.items()
        for layer in range(layers[name.split("/")[0]] if "/layers_0/" in name else 1)
    }

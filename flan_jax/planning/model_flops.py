"""The FLOPs that a T5 needs by its sizes alone: what a model-FLOPs utilisation is a share of."""

from flan_jax.models.config import T5Config


def forward_flops_per_row(config: T5Config, *, encoder_length: int, decoder_length: int) -> int:
    """Returns the FLOPs of matrix products in one row's forward pass.

    Attention is counted over whole rows: neither the causal half nor what segments mask is taken off. The embedding is
    a look-up and counts nothing.
    """
    S, T = encoder_length, decoder_length
    D, A = config.emb_dim, config.num_heads * config.head_dim
    L_enc, L_dec = config.num_encoder_layers, config.num_decoder_layers
    feed_forward = (len(config.mlp_activations) + 1) * D * config.mlp_dim
    encoder = 2 * S * L_enc * (4 * D * A + feed_forward) + 4 * S * S * A * L_enc
    decoder = 2 * T * L_dec * (4 * D * A + 2 * D * A + feed_forward) + 4 * T * T * A * L_dec
    cross = 2 * S * L_dec * (2 * D * A) + 4 * S * T * A * L_dec  # Keys and values lie over the encoder's positions.
    return encoder + decoder + cross + 2 * T * D * config.vocab_size


def training_flops_per_row(config: T5Config, *, encoder_length: int, decoder_length: int) -> int:
    """Returns the FLOPs of a row's training step: a backward pass is two forward passes. What is computed again counts not.

    >>> small = T5Config(emb_dim=512, num_heads=6, num_encoder_layers=8, num_decoder_layers=8, head_dim=64, mlp_dim=1024)
    >>> f"{training_flops_per_row(small, encoder_length=512, decoder_length=128):.3g}"
    '1.1e+11'
    """
    return 3 * forward_flops_per_row(config, encoder_length=encoder_length, decoder_length=decoder_length)

"""`transformers` itself: it loads what is written here, with our logits and tokens; what it saves loads here alike."""

import contextlib
import io
import re

import numpy as np
import pytest

from flan_jax.checkpoint.huggingface import folder as huggingface
from flan_jax.checkpoint.leaves import BFLOAT16
from flan_jax.decoding.strategies import Greedy
from flan_jax.run.network import Network
from flan_jax.shapes import EOS_ID
from flan_jax.sharding import MeshPlan
from tests.checkpoint import synthetic_huggingface as synthetic

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore:::transformers", "ignore:::torch")]

STEPS = 12
TOLERANCE = 1e-4


def version() -> tuple[int, int]:
    import transformers

    major, minor, *_ = transformers.__version__.split(".")
    return int(major), int(minor)


def scales_umt5_always() -> bool:
    return (5, 0) <= version() < (5, 24)


def load(folder, **changes):
    """Returns transformers' model of a folder, after looking that every tensor found its place."""
    from transformers import AutoModelForSeq2SeqLM

    model, info = AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info.get(kind), f"{kind}: {info[kind]}"
    for name, value in changes.items():
        setattr(model.config, name, value)
    return model.eval().float()


def arrays(vocab_size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    mask = np.arange(30) < np.array([30, 11])[:, None]
    targets = rng.integers(2, min(vocab_size, 40), (2, 8))
    targets[:, 0] = 0
    return {
        "input_ids": rng.integers(2, min(vocab_size, 40), (2, 30)) * mask,
        "attention_mask": mask.astype(np.int64),
        "decoder_input_ids": targets,
    }


def their_logits(model, batch) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(**{name: torch.tensor(value) for name, value in batch.items()}).logits.numpy()


def their_tokens(model, batch) -> np.ndarray:
    import torch

    seen = {name: torch.tensor(batch[name]) for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        tokens = model.generate(**seen, do_sample=False, num_beams=1, max_new_tokens=STEPS).numpy()[:, 1:]
    return np.pad(tokens, ((0, 0), (0, STEPS - tokens.shape[1])))


def our_tokens(opened, batch) -> np.ndarray:
    decode = Network(opened.config, plan=MeshPlan()).decoder(
        synthetic.params(opened),
        strategy=Greedy(),
        max_decode_length=STEPS,
        batch_size=8,  # A multiple of the devices that the tests have.
        vocabulary=None,
        eos_id=EOS_ID,
    )
    inputs = [ids[mask > 0] for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    tokens = {number: hypothesis.tokens for number, (hypothesis,) in decode(enumerate(inputs))}
    return np.stack([np.pad(tokens[n], (0, STEPS - len(tokens[n]))) for n in range(len(inputs))])


def agree(model, opened, batch, *, name: str) -> None:
    ours, theirs = synthetic.logits(opened, batch), their_logits(model, batch)
    difference = float(np.abs(ours - theirs).max())
    print(f"\n{name}: logits up to {np.abs(theirs).max():.2f}, differ by {difference:.1e}")
    assert difference < TOLERANCE
    np.testing.assert_array_equal(our_tokens(opened, batch), their_tokens(model, batch))


@pytest.fixture(params=synthetic.FAMILIES)
def family(request):
    if request.param == "t5_untied_scaled" and version() < (5, 0):
        pytest.skip("transformers 4 scales the logits of tied networks only; the folder says so")
    return request.param


@pytest.mark.parametrize("max_shard_bytes", [5 * 10**9, 3000], ids=["single", "sharded"])
def test_what_is_written_loads_there_with_our_logits_and_tokens(family, max_shard_bytes, tmp_path):
    synthetic.write(family, tmp_path, max_shard_bytes=max_shard_bytes)
    changes = {"tie_word_embeddings": False} if family == "umt5" and scales_umt5_always() else {}  # as the note says
    opened = huggingface.open_weights(tmp_path)
    agree(load(tmp_path, **changes), opened, arrays(opened.config.vocab_size), name=f"{family} written")


def test_umt5_differs_by_the_factor_that_the_note_names_in_the_versions_that_it_names(tmp_path):
    synthetic.write("umt5", tmp_path)
    opened = huggingface.open_weights(tmp_path)
    batch, model = arrays(opened.config.vocab_size), load(tmp_path)
    factor = opened.config.emb_dim**-0.5 if scales_umt5_always() else 1.0
    np.testing.assert_allclose(their_logits(model, batch), factor * synthetic.logits(opened, batch), atol=TOLERANCE)
    np.testing.assert_array_equal(our_tokens(opened, batch), their_tokens(model, batch))


def test_what_is_saved_there_loads_here_with_its_logits_and_tokens(family, tmp_path):
    synthetic.write(family, tmp_path / "ours")
    model = load(tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs", max_shard_size=5000)
    opened = huggingface.open_weights(tmp_path / "theirs")
    assert "files" in opened.layout
    agree(model, opened, arrays(opened.config.vocab_size), name=f"{family} saved there")


def test_umt5_fixed_as_the_note_recommends_stays_fixed_when_it_is_saved_there(tmp_path):
    if not scales_umt5_always():
        pytest.skip("this version of transformers needs no fix")
    synthetic.write("umt5", tmp_path / "ours")
    model = load(tmp_path / "ours", tie_word_embeddings=False)
    model.save_pretrained(tmp_path / "theirs")
    opened = huggingface.open_weights(tmp_path / "theirs")
    assert opened.config == synthetic.config("umt5")
    agree(model, opened, arrays(opened.config.vocab_size), name="umt5 mended and saved there")


def test_bfloat16_has_the_same_bits_there(tmp_path):
    import torch
    from transformers import AutoModelForSeq2SeqLM

    weights = synthetic.write("t5_1_1", tmp_path, dtype=BFLOAT16)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    kernel = model.encoder.block[1].layer[1].DenseReluDense.wo.weight
    assert kernel.dtype == torch.bfloat16
    wanted = weights.params["encoder/layers_1/mlp/wo/kernel"].whole().T.astype(np.float32)
    np.testing.assert_array_equal(kernel.detach().float().numpy(), wanted)


def test_the_lines_that_convert_a_pickle_do(tmp_path):
    import torch

    weights = synthetic.write("t5_1_1", tmp_path / "saved")
    torch.save(load(tmp_path / "saved").state_dict(), tmp_path / "saved" / "pytorch_model.bin")
    (tmp_path / "saved" / "model.safetensors").unlink()
    with pytest.raises(ValueError) as error:
        huggingface.open_weights(tmp_path / "saved")
    lines = "\n".join(line.strip() for line in re.findall(r"^  .*$", str(error.value), flags=re.MULTILINE))
    with contextlib.redirect_stderr(io.StringIO()):
        exec(lines, {})
    opened = huggingface.open_weights(tmp_path / "saved-safetensors")
    for name, leaf in weights.params.items():
        np.testing.assert_array_equal(opened.params[name].whole(), leaf.whole())

"""T5X's trainer with this project: it trains on our mixtures, and each resumes the other's runs as if uninterrupted.

The files of docs/t5x.md are what it is given. It runs in processes of its own, with its own settings of JAX and its own
warnings, and on one device: on several CPU devices its mesh splits heads.
"""

import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import gin
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import cli, gin_config, vocab
from flan_jax.checkpoint import formats, starts
from flan_jax.checkpoint.trees import named_leaves, nested, unflatten
from flan_jax.models.t5 import model as t5
from flan_jax.models.t5.config import T5Config
from flan_jax.objectives.seq2seq import Seq2Seq
from flan_jax.optim import optimizers
from flan_jax.train.state import TrainState
from flan_jax.train.step import make_train_step

pytestmark = [pytest.mark.t5x, pytest.mark.tensorflow]

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "t5x.md").read_text()
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE, flags=re.DOTALL))
RATE = 0.02
SIZES = {"emb_dim": 128, "num_heads": 4, "head_dim": 32, "mlp_dim": 256, "vocab_size": 1600}  # wide enough for means
RUN = """
from __gin__ import dynamic_registration
import __main__ as train_script
from t5x import utils
from {network} import network
include "t5x_run.gin"
network.T5Config:
{sizes}
  dtype = "float32"
DROPOUT_RATE = 0.0
BATCH_SIZE = 8
RANDOM_SEED = 0
train/utils.DatasetConfig.seed = 0
train_script.train.train_eval_dataset_cfg = None
train_script.train.stats_period = 1
train_script.train.use_orbax = {use_orbax}
utils.SaveCheckpointConfig.period = {period}
utils.create_learning_rate_scheduler.factors = "constant"
utils.create_learning_rate_scheduler.base_learning_rate = {rate}
"""
OURS = """
from __gin__ import dynamic_registration
from flan_jax.checkpoint import starts
from flan_jax.models.t5 import config
include 'gin_configs/models/t5_1_1/micro.gin'
include 'gin_configs/optimizers/adafactor.gin'
include 'gin_configs/runs/train.gin'
MIXTURE_OR_TASK_NAME = "embedded_train"
VOCABULARY = "embedded"
TASK_FEATURE_LENGTHS = {"inputs": 128, "targets": 16}
BATCH_SIZE = 8
starts.Start.restore = "params_and_optimizer"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """One of T5X's two: where it lies, its model file, the same as ours, and the checkpoint manager of its run."""

    module: str
    model_file: str
    config: T5Config
    use_orbax: bool


NETWORKS = {
    "layers by name": Network(
        module="t5x.examples.t5",
        model_file="t5/t5_1_1/small.gin",
        config=T5Config(**SIZES, num_encoder_layers=2, num_decoder_layers=2, dropout_rate=0.0),
        use_orbax=True,
    ),
    "layers stacked": Network(
        module="t5x.examples.scalable_t5",
        model_file="scalable_t5/mt5/small.gin",
        config=T5Config(
            **SIZES, num_encoder_layers=3, num_decoder_layers=2, relpos_bias_per_layer=True, dropout_rate=0.0
        ),
        use_orbax=False,
    ),
}


def in_t5x(folder: Path, *words: str) -> str:
    """Runs Python in the directory of the page's files, and returns its output."""
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": f"{folder}:{ROOT}"}
    environment.pop("JAX_NUMPY_RANK_PROMOTION", None)
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def train_there(folder: Path, gin_file: str, model_dir: Path, *, steps: int, **macros: str) -> dict[int, float]:
    """Runs T5X's trainer up to a step and returns the loss that it logged for each."""
    bindings = {"MODEL_DIR": f'"{model_dir}"', "TRAIN_STEPS": steps, **macros}
    said = in_t5x(
        folder, "-m", "t5x.train", f"--gin_file={gin_file}", *(f"--gin.{name}={v}" for name, v in bindings.items())
    )
    found = re.findall(r"\[(\d+)\] collection=train accuracy=.*? loss=([-+.e\d]+)", said)
    return {int(step): float(loss) for step, loss in found}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run of T5X, and what T5X computes for it."""

    network: Network
    folder: Path
    losses: dict[int, float]
    answers: dict[str, np.ndarray]

    def batch(self, name: str) -> dict[str, np.ndarray]:
        """One of T5X's batches, as ours; those that are not packed have neither segments nor positions there."""
        found = {key.partition("/")[2]: array for key, array in self.answers.items() if key.startswith(f"{name}/")}
        for side, tokens in (("encoder", "encoder_input_tokens"), ("decoder", "decoder_target_tokens")):
            is_token = found[tokens] > 0
            found.setdefault(f"{side}_segment_ids", is_token.astype(np.int32))
            found.setdefault(f"{side}_positions", np.arange(is_token.shape[1], dtype=np.int32) * is_token)
        return found | {"decoder_loss_weights": found["decoder_loss_weights"].astype(np.float32)}


@pytest.fixture(scope="module", params=NETWORKS)
def run(request, tmp_path_factory) -> Run:
    network = NETWORKS[request.param]
    folder = tmp_path_factory.mktemp("t5x")
    for name, content in FILES.items():
        (folder / name).write_text(content.replace("t5/t5_1_1/small.gin", network.model_file))
    layers = {name: getattr(network.config, name) for name in ("num_encoder_layers", "num_decoder_layers")}
    sizes = "\n".join(f"  {name} = {value}" for name, value in {**SIZES, **layers}.items())
    for name, settings in {
        "run.gin": {"use_orbax": network.use_orbax, "period": 1},
        "other_manager.gin": {"use_orbax": not network.use_orbax, "period": 2},
    }.items():
        (folder / name).write_text(RUN.format(network=network.module, sizes=sizes, rate=RATE, **settings))
    losses = train_there(folder, "run.gin", folder / "theirs", steps=4)
    asked = {"MODEL_DIR": "unused", "ANSWERS": "answers.npz", "CHECKPOINT": str(folder / "theirs" / "checkpoint_4")}
    in_t5x(
        folder,
        str(ROOT / "tools" / "t5x_answers.py"),
        "--gin_file=run.gin",
        *(f'--gin.{name}="{value}"' for name, value in asked.items()),
    )
    with np.load(folder / "answers.npz") as answers:
        return Run(network=network, folder=folder, losses=losses, answers=dict(answers))


def opened(path: Path) -> TrainState:
    """Returns a checkpoint of either trainer as a train state of flan_jax."""
    weights = formats.open_weights(path)
    params = nested({name: jnp.asarray(leaf.whole()) for name, leaf in weights.params.items()})
    abstract = jax.eval_shape(optimizers.adafactor(RATE).init, params)
    slots = starts.restored_optimizer(weights, abstract, params=named_leaves(params))
    return TrainState(step=jnp.asarray(weights.step, jnp.int32), params=params, opt_state=unflatten(slots, abstract))


@functools.cache
def compiled_step(config: T5Config):
    apply = functools.partial(t5.forward, config=config)
    return jax.jit(make_train_step(Seq2Seq(), apply, optimizers.adafactor(RATE), seed=0))


def go_on(state: TrainState, run: Run, batches: list[int]) -> tuple[TrainState, list[float]]:
    """Trains flan_jax's step on T5X's batches."""
    step, losses = compiled_step(run.network.config), []
    for number in batches:
        state, metrics = step(state, run.batch(f"batch_{number}"))
        losses.append(float(metrics.mean("loss")))
    return state, losses


def assert_same_state(got: TrainState, wanted: TrainState, *, before: TrainState):
    """Equal to rounding, measured by what the updates changed and not by the size of the parameters."""
    assert int(got.step) == int(wanted.step)
    old, new = named_leaves(before.params), named_leaves(wanted.params)
    for name, value in named_leaves(got.params).items():
        change = float(np.sqrt(np.mean(np.square(new[name] - old[name]))))
        rounding = 4 * float(np.spacing(np.abs(new[name]).max()))
        assert change > 100 * np.spacing(np.float32(np.abs(new[name]).mean())), name  # else this would say nothing
        np.testing.assert_allclose(value, new[name], rtol=0, atol=1e-4 * change + rounding, err_msg=name)
    slots = named_leaves(wanted.opt_state)
    for name, value in named_leaves(got.opt_state).items():
        np.testing.assert_allclose(value, slots[name], rtol=1e-4, atol=1e-6 * np.abs(slots[name]).max(), err_msg=name)


def test_t5x_learns_from_our_mixture(run):
    assert list(run.losses) == [1, 2, 3, 4] and run.losses[4] < run.losses[1] - 1
    targets = vocab.load("embedded").decode(run.batch("batch_0")["decoder_target_tokens"][0])
    assert re.fullmatch(r"[\w .,?!'-]+", targets)


def test_every_leaf_of_a_t5x_checkpoint_is_read(run):
    weights = formats.open_weights(run.folder / "theirs")
    theirs = {key.removeprefix("state/target/"): a for key, a in run.answers.items() if key.startswith("state/target/")}
    assert weights.step == 4 and weights.slots
    assert sum(leaf.size for leaf in weights.params.values()) == sum(array.size for array in theirs.values())
    for name, leaf in weights.params.items():
        layer = re.fullmatch(r"(encoder|decoder)/layers_(\d+)/(.+)", name)
        if layer and run.network.config.relpos_bias_per_layer:
            wanted = np.take(theirs[f"{layer[1]}/{layer[1]}/{layer[3]}"], int(layer[2]), axis=1)
        else:
            wanted = theirs[name]
        np.testing.assert_array_equal(leaf.whole(), wanted.reshape(leaf.shape), err_msg=name)


@pytest.mark.parametrize("kind", ["packed", "unpacked"])
def test_t5xs_network_has_the_same_logits(run, kind):
    batch = run.batch("batch_0" if kind == "packed" else "unpacked")
    got = jax.jit(functools.partial(t5.forward, config=run.network.config))(opened(run.folder / "theirs").params, batch)
    counts = batch["decoder_loss_weights"] > 0  # The two mask differently at padding, where the loss is zero.
    assert counts.sum() >= 16
    np.testing.assert_allclose(got[counts], run.answers[f"logits/{kind}"][counts], rtol=1e-5, atol=1e-5)


def test_one_update_of_adafactor_is_the_same(run):
    before = opened(run.folder / "theirs" / "checkpoint_3")
    after, (loss,) = go_on(before, run, [3])
    assert loss == pytest.approx(run.losses[4], rel=1e-6)
    assert_same_state(after, opened(run.folder / "theirs" / "checkpoint_4"), before=before)


def test_a_t5x_run_continues_here(run):
    before = opened(run.folder / "theirs" / "checkpoint_1")
    after, losses = go_on(before, run, [1, 2, 3])
    assert losses == pytest.approx([run.losses[step] for step in (2, 3, 4)], rel=1e-5)
    assert_same_state(after, opened(run.folder / "theirs" / "checkpoint_4"), before=before)


def test_a_flan_jax_run_continues_in_t5x(run, export_dir):
    config, folder = run.network.config, run.folder
    chosen = {name: getattr(config, name) for name in (*SIZES, "num_encoder_layers", "num_decoder_layers")}
    settings = [f"config.T5Config.{name}={value}" for name, value in chosen.items()]
    settings += [f"config.T5Config.relpos_bias_per_layer={config.relpos_bias_per_layer}", f"LEARNING_RATE={RATE}"]
    settings += [f'{name}="{value}"' for name, value in {
        "MODEL_DIR": folder / "ours", "EXPORT_DIR": export_dir, "INITIAL_CHECKPOINT_PATH": folder / "theirs"
    }.items()]  # fmt: skip
    (folder / "ours.gin").write_text(OURS)
    words = ["train", f"--gin_file={folder}/ours.gin", "--gin.TRAIN_STEPS=5", *(f"--gin.{s}" for s in settings)]
    assert cli.run(words) == 0
    scanned = ["--scanned"] if config.relpos_bias_per_layer else []
    there = folder / "ours_there"
    assert cli.run(["convert", f"--from={folder}/ours", f"--to={there}", "--format=t5x", *scanned]) == 0

    logged = train_there(folder, "other_manager.gin", there, steps=7)
    before = opened(folder / "ours")
    assert int(before.step) == 5
    after, losses = go_on(before, run, [0, 1])
    assert losses == pytest.approx([logged[6], logged[7]], rel=1e-5)
    assert_same_state(opened(there), after, before=before)


@pytest.mark.parametrize("run", ["layers by name"], indirect=True)
def test_parameters_alone_start_a_t5x_run(run):
    folder, alone = run.folder, run.folder / "alone"
    words = ["convert", f"--from={folder}/theirs", f"--to={alone}", "--format=t5x", "--params_only"]
    assert cli.run(words) == 0
    # The page's file, on top of this test's run instead of the page's own.
    (folder / "start.gin").write_text(FILES["t5x_start.gin"].replace("t5x_run.gin", "run.gin"))
    logged = train_there(
        folder, "start.gin", folder / "started", steps=5, INITIAL_CHECKPOINT_PATH=f'"{alone}/checkpoint_4"'
    )
    _, (loss,) = go_on(opened(folder / "theirs"), run, [0])
    assert logged == {5: pytest.approx(loss, rel=1e-6)}


SIZES_THERE = """
import importlib, json, sys
import gin
from t5x import gin_utils, train
network = importlib.import_module(sys.argv[1])
found = []
for files in json.loads(sys.argv[2]):
    gin.clear_config()
    gin_utils.parse_gin_flags(train._DEFAULT_GIN_SEARCH_PATHS, files, ["DROPOUT_RATE = 0.0"], finalize_config=False)
    found.append(gin.get_bindings(network.T5Config))
print("FOUND", json.dumps(found))
"""


def paired_files() -> list[tuple[str, list[str]]]:
    """The rows of the page's table: our file, and T5X's that make up the same model."""
    pairs = []
    for ours, theirs in re.findall(r"^\| `(\S+)` \| ((?:`\S*t5/\S+` ?)+)\|$", PAGE, flags=re.MULTILINE):
        files = re.findall(r"`(\S+)`", theirs)
        for place in range(len(_expanded(ours))):
            expanded = [_expanded(file) for file in files]
            pairs.append((_expanded(ours)[place], [names[place % len(names)] for names in expanded]))
    return pairs


def _expanded(pattern: str) -> list[str]:
    """ "a/{b,c}.gin" -> ["a/b.gin", "a/c.gin"]."""
    match = re.fullmatch(r"(.*)\{(.*)\}(.*)", pattern)
    return [f"{match[1]}{word}{match[3]}" for word in match[2].split(",")] if match else [pattern]


@pytest.mark.parametrize("example, files", [("t5", 30), ("scalable_t5", 4)])
def test_model_files_have_the_sizes_of_t5xs(example, files, tmp_path):
    pairs = [(ours, theirs) for ours, theirs in paired_files() if theirs[0].startswith(f"{example}/")]
    assert len(pairs) == files
    words = json.dumps([[f"t5x/examples/{file}" for file in theirs] for _, theirs in pairs])
    said = in_t5x(tmp_path, "-c", SIZES_THERE, f"t5x.examples.{example}.network", words)
    (line,) = [line for line in said.splitlines() if line.startswith("FOUND ")]
    for (ours, _), there in zip(pairs, json.loads(line.removeprefix("FOUND ")), strict=True):
        gin_config.parse([f"gin_configs/models/{ours}"], [])
        config = gin.get_configurable(T5Config)()
        here = json.loads(json.dumps(dataclasses.asdict(config)))  # Tuples are lists there too.
        compared = {*here} & {*there} - {"dtype", "dropout_rate"}
        assert len(compared) == 9, ours
        assert {name: here[name] for name in compared} == {name: there[name] for name in compared}, ours
        assert config.relpos_bias_per_layer == (example == "scalable_t5") and config.scale_decoder_outputs is None

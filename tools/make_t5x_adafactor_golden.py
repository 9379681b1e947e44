"""Saves what T5X's own Adafactor does to a few small parameters, for tests/optim/test_optimizers.py.

    python tools/make_t5x_adafactor_golden.py PATH/TO/t5x/adafactor.py [tests/golden/t5x_adafactor.npz]

T5X's file is loaded by path and runs unchanged. Two modules of T5X that it imports need packages that can no longer be
installed, so stand-ins supply the three names it uses from them. Parameters and gradients come from a seeded generator;
the test imports them, and the settings, from here, so the file contains only T5X's results.
"""

import dataclasses
import importlib.util
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parents[1] / "tests" / "golden" / "t5x_adafactor.npz"
STEPS = 5
SHAPES = {"tall": (130, 128), "wide": (128, 130), "square": (128, 128), "small": (6, 32), "scale": (64,)}


def parameters() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(7)
    return {name: (0.3 * generator.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}


def gradients(step: int) -> dict[str, np.ndarray]:
    """Of another size at every step, so that the second moment's decay and the clipping both matter."""
    generator = np.random.default_rng(100 + step)
    size = (0.5, 1.0, 0.3, 3.0, 1.0)[step]
    return {name: (size * generator.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}


def sample(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """About 130 values of each array, from all its rows and columns, one array after the other."""
    flat = [np.asarray(arrays[name], np.float32).reshape(-1) for name in SHAPES]
    return np.concatenate([values[:: max(1, values.size // 130) | 1] for values in flat])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """The same settings under T5X's names and under ours."""

    t5x_learning_rate: Callable[[int], float]
    schedule: tuple[str, dict]
    t5x_arguments: dict = dataclasses.field(default_factory=dict)
    arguments: dict = dataclasses.field(default_factory=dict)


_EVERYTHING = {"weight_decay_rate": 0.01, "clipping_threshold": 0.5, "decay_rate": 0.7, "step_offset": -3}

# Rates far above any real one: the change is then of the parameter's own size, and comparing parameters in float32
# compares the updates to seven digits. An update is linear in the rate.
CASES = {
    "constant": Case(t5x_learning_rate=lambda step: 0.5, schedule=("constant", {"learning_rate": 0.5})),
    "rsqrt": Case(
        t5x_learning_rate=lambda step: 1.0 / max(step, 2) ** 0.5,
        schedule=("rsqrt", {"learning_rate": 1.0, "flat_steps": 2}),
    ),
    "everything": Case(
        t5x_learning_rate=lambda step: 5.0,
        schedule=("constant", {"learning_rate": 5.0}),
        t5x_arguments={**_EVERYTHING, "beta1": 0.9, "global_norm_clip_threshold": 5.0},
        arguments={**_EVERYTHING, "momentum": 0.9, "max_gradient_norm": 5.0},
    ),
}


def load_t5x_adafactor(path: str) -> types.ModuleType:
    """T5X's module, with stand-ins for the parts of T5X it imports."""
    import flax.struct
    import flax.traverse_util

    t5x, utils, optimizers = (types.ModuleType(name) for name in ("t5x", "t5x.utils", "t5x.optimizers"))

    @flax.struct.dataclass
    class OptimizerState:
        step: np.ndarray
        param_states: dict

    class OptimizerDef:
        def __init__(self, hyper_params):
            self.hyper_params = hyper_params

    def flatten_dict_string_keys(tree):
        return flax.traverse_util.flatten_dict(tree, sep="/")

    utils.flatten_dict_string_keys = flatten_dict_string_keys
    optimizers.OptimizerDef, optimizers.OptimizerState = OptimizerDef, OptimizerState
    t5x.utils, t5x.optimizers = utils, optimizers
    sys.modules.update({"t5x": t5x, "t5x.utils": utils, "t5x.optimizers": optimizers})
    spec = importlib.util.spec_from_file_location("t5x.adafactor", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(path: str, out: str = str(OUT)) -> None:
    module = load_t5x_adafactor(path)
    golden = {}
    for name, case in CASES.items():
        optimizer = module.Adafactor(**case.t5x_arguments)
        params = parameters()
        state = optimizer.init_state(params)
        for step in range(STEPS):
            hyper_params = optimizer.hyper_params.replace(learning_rate=case.t5x_learning_rate(step))
            params, state = optimizer.apply_gradient(hyper_params, params, state, gradients(step))
            golden[f"{name}/params_{step}"] = sample(params)
        for kind in ("v_row", "v_col", "v"):
            golden[f"{name}/{kind}"] = sample({leaf: getattr(s, kind) for leaf, s in state.param_states.items()})
    np.savez_compressed(out, **golden)
    print(f"{out}: {Path(out).stat().st_size:,} bytes, {len(golden)} arrays")


if __name__ == "__main__":
    main(*sys.argv[1:])

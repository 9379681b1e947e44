"""Instruction tuning of encoder-decoder models: SeqIO tasks, exact data order, T5X's parameter tree, one command line.

The names below are the public Python API. Each is imported when it is first used, so that importing `flan_jax` loads
neither JAX nor TensorFlow. (`flan_jax.train` is the package of the training loop; `train_model` is the verb.)

    config = flan_jax.load_recipe("gin_configs/recipes/quickstart.gin", bindings=["MODEL_DIR='runs/first'"])
    finished = flan_jax.train_model(config)
    options = flan_jax.ModelOptions(model_dir=str(finished.directory))
    for row in flan_jax.infer(options, input="rows.jsonl"):
        print(row["prediction"])
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flan_jax.collections.catalog import register_yaml
    from flan_jax.commands.evaluate import evaluate
    from flan_jax.commands.infer import infer
    from flan_jax.commands.train import train as train_model
    from flan_jax.errors import UserError
    from flan_jax.run.run_config import RunConfig, load_recipe
    from flan_jax.run.trained import ModelOptions
    from flan_jax.tasks.registry import register_jsonl

__all__ = [
    "ModelOptions", "RunConfig", "UserError", "evaluate", "infer", "load_recipe", "register_jsonl", "register_yaml",
    "train_model",
]  # fmt: skip
__version__ = "0.1.0"

_HOMES = {
    "ModelOptions": ("flan_jax.run.trained", "ModelOptions"),
    "RunConfig": ("flan_jax.run.run_config", "RunConfig"),
    "UserError": ("flan_jax.errors", "UserError"),
    "evaluate": ("flan_jax.commands.evaluate", "evaluate"),
    "infer": ("flan_jax.commands.infer", "infer"),
    "load_recipe": ("flan_jax.run.run_config", "load_recipe"),
    "register_jsonl": ("flan_jax.tasks.registry", "register_jsonl"),
    "register_yaml": ("flan_jax.collections.catalog", "register_yaml"),
    "train_model": ("flan_jax.commands.train", "train"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flan_jax' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The variants of a Flan 2022 task (Longpre et al. 2023, arXiv:2301.13688): zero- or few-shot, with or without options.

    rte_template_0to10_non_deter_opt_zero_shot   options in styles drawn per row
    gsm8k_template_0to10_zero_shot               the same for a task without options
    rte_template_0to10_no_opt_zero_shot          options are not shown
    rte_template_mix_five_shot                   five exemplars, each under any template
    rte_template_0to10_x_shot                    of 25 exemplars, those that drew the query's template
    rte_template_0to10_no_opt_x_shot             the same, options are not shown
    rte_template_0_five_shot, _1_two_shot, _2_one_shot   one template; in no mixture, like their no_opt forms

Names are the released code's. There, the exemplars of `template_mix` come from a generator without a seed; here, every
choice follows from the task's name, the row's index and the seed. Few-shot prompts list options in the fixed form and
have at least one exemplar. `submixtures` defines the tasks.
"""

import dataclasses
from typing import Literal

from flan_jax.collections.flan2021.variants import without_options
from flan_jax.evaluation.metrics import METRICS
from flan_jax.tasks.declare import FewShot, TemplatedTask
from flan_jax.templates import fewshot_formats
from flan_jax.templates.render import Pattern, Template

# The release's `FEW_SHOT_MAX_LEN`, for inputs of 2,048 tokens.
MAX_PROMPT_TOKENS = 1920
NUM_FEW_SHOT_TEMPLATES = 10
"""A task with more templates uses the first ten in few-shot prompts."""
NUM_DRAWN = 25
"""Exemplars that are drawn for `x_shot`; with ten templates, on average 2.5 have the query's."""

Setting = Literal["zs_opt", "fs_opt", "zs_noopt", "fs_noopt"]
SETTINGS: tuple[Setting, ...] = ("zs_opt", "fs_opt", "zs_noopt", "fs_noopt")
Kind = Literal["zero", "mix", "matching", "fixed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One kind of a task's prompts.

    Attributes:
      suffix: Of its name.
      kind: How exemplars are chosen; "zero" has none.
      shows_options: Whether options are listed.
      varies: Whether the style of options or of a dialogue is drawn per row.
      setting: The mixtures that it belongs to; None for none.
      template: The only one, for "fixed".
      num_exemplars: The largest number.
    """

    suffix: str
    kind: Kind
    shows_options: bool = True
    varies: bool = False
    setting: Setting | None = None
    template: int | None = None
    num_exemplars: int = 0

    def name(self, dataset: str) -> str:
        """Returns the name of a dataset's task.

        >>> STYLED.name("rte")
        'rte_template_0to10_non_deter_opt_zero_shot'
        """
        return f"{dataset}_{self.suffix}"


STYLED = Variant(suffix="template_0to10_non_deter_opt_zero_shot", kind="zero", varies=True, setting="zs_opt")
ZERO_SHOT = Variant(suffix="template_0to10_zero_shot", kind="zero", setting="zs_opt")
NO_OPTIONS = Variant(suffix="template_0to10_no_opt_zero_shot", kind="zero", shows_options=False, setting="zs_noopt")
MIX = Variant(suffix="template_mix_five_shot", kind="mix", setting="fs_opt", num_exemplars=5)
X_SHOT = Variant(suffix="template_0to10_x_shot", kind="matching", setting="fs_opt", num_exemplars=NUM_DRAWN)
NO_OPTIONS_X_SHOT = dataclasses.replace(
    X_SHOT, suffix="template_0to10_no_opt_x_shot", shows_options=False, setting="fs_noopt"
)
FIXED = tuple(
    Variant(suffix=f"template_{i}_{shot}_shot", kind="fixed", template=i, num_exemplars=n)
    for i, (shot, n) in enumerate((("five", 5), ("two", 2), ("one", 1)))
)
FIXED_NO_OPTIONS = tuple(
    dataclasses.replace(v, suffix=v.suffix.replace(f"_{v.template}_", f"_{v.template}_no_opt_"), shows_options=False)
    for v in FIXED
)


def variants(*, varies: bool, has_no_options: bool) -> tuple[Variant, ...]:
    """Returns the variants of a task.

    Args:
      varies: Whether it shows options or a dialogue, whose styles may be drawn.
      has_no_options: Whether its submixture has variants without options.
    """
    shown = (STYLED if varies else ZERO_SHOT, MIX, X_SHOT, *FIXED)
    return (*shown, NO_OPTIONS, NO_OPTIONS_X_SHOT, *FIXED_NO_OPTIONS) if has_no_options else shown


def varied(base: TemplatedTask, variant: Variant, *, dataset: str) -> TemplatedTask:
    """Returns a variant of a task.

    Args:
      base: The dataset's rows and all its templates, zero-shot, options in the fixed form.
      variant: The variant.
      dataset: The prefix of its name, which also determines the few-shot formats.
    """
    templates = base.templates
    if variant.kind != "zero":
        templates = templates[:NUM_FEW_SHOT_TEMPLATES]
    if variant.template is not None:
        templates = (templates[variant.template],)
    if not variant.shows_options:
        templates = tuple(map(_without_options, templates))
    # Metrics read them from the exported rows, also where the prompt does not show them.
    needs_options = any("options" in METRICS[metric].needs for metric in base.metrics)
    return dataclasses.replace(
        base,
        name=variant.name(dataset),
        templates=templates,
        options=base.options if variant.shows_options or needs_options else None,
        few_shot=few_shot(variant, dataset=dataset, seed=base.seed),
        varied_options=variant.varies and any(template.shows_options for template in templates),
    )


def few_shot(variant: Variant, *, dataset: str, seed: int = 0) -> FewShot | None:
    """Returns how a variant chooses and joins its exemplars; None for zero-shot."""
    formats = fewshot_formats.rotated(dataset)
    if variant.kind == "zero":
        return None
    if variant.kind == "fixed":
        assert variant.template is not None
        formats = (formats[variant.template],)
    if variant.kind == "mix":
        formats = fewshot_formats.mixed(variant.name(dataset), seed=seed)
    return FewShot(
        num_exemplars=variant.num_exemplars,
        formats=formats,
        max_tokens=MAX_PROMPT_TOKENS,
        # A few-shot row without an exemplar would be a zero-shot row, and count as few-shot in the mixture.
        drop_without=True,
        templates={"mix": "mixed", "matching": "matching", "fixed": "query"}[variant.kind],  # type: ignore[arg-type]
    )


def _without_options(template: Pattern) -> Pattern:
    if not isinstance(template, Template):
        return template
    return dataclasses.replace(template, inputs=without_options(template.inputs))

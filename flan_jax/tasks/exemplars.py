"""Solved examples for a task's queries: drawn from its training rows by the query's key, limited to a token budget.

`templates.fewshot` decides how many fit and joins them; `rendering` supplies the rows and renders them.
"""

from collections.abc import Callable, Sequence

from flan_jax.draws import Draws
from flan_jax.errors import UserError
from flan_jax.tasks.declare import FewShot
from flan_jax.tasks.sources.rows import Row
from flan_jax.templates.fewshot import num_fitting
from flan_jax.templates.options import OptionStyle
from flan_jax.templates.render import NotApplicable, Rendered

RenderPooled = Callable[[Row, int, OptionStyle | None], Rendered]
"""(row, template, style of options) -> texts of a row of the pool; raises NotApplicable."""
CountTokens = Callable[[str], int]


class Exemplars:
    """The pool of a task's exemplars.

    Exemplars depend on the query's key alone, not on earlier queries nor on the process.
    """

    def __init__(
        self,
        few_shot: FewShot,
        *,
        pool: Sequence[Row],
        num_templates: int,
        render: RenderPooled,
        count_tokens: CountTokens | None,
    ):
        """Takes the pool.

        Args:
          few_shot: Number of exemplars, their templates and token budget.
          pool: Normalized rows of the split "train", in its order.
          num_templates: Number of templates that the pool's rows can be rendered under.
          render: Renders one of them.
          count_tokens: Counts the tokens of a text, without end of sequence; needed when there is a budget.

        Raises:
          UserError: A budget in tokens, and no `count_tokens`.
        """
        if few_shot.max_tokens is not None and count_tokens is None:
            raise UserError("Few-shot prompts within max_tokens need a vocabulary to count tokens with.")
        self._few_shot, self._pool, self._num_templates = few_shot, pool, num_templates
        self._render, self._count_tokens = render, count_tokens
        self._counted: dict[str, int] = {}

    def prompt(
        self, query: Rendered, row: Row, *, template: int, style: OptionStyle | None, draws: Draws
    ) -> str | None:
        """Returns the prompt of a query; None when no exemplar is left and such rows are dropped.

        Args:
          query: The rendered row.
          row: The row itself, which is never its own exemplar.
          template: Position of the query's template.
          style: Style of the query's options, which its exemplars share.
          draws: Random choices keyed by the query.
        """
        shown = self._drawn(row, template=template, style=style, draws=draws)
        if self._few_shot.max_tokens is not None:
            counts = [(self._count(i), self._count(t)) for i, t in shown]
            query_tokens = self._count_once(query.inputs)
            shown = shown[: num_fitting(query_tokens, counts, max_tokens=self._few_shot.max_tokens)]
        if not shown and self._few_shot.drop_without:
            return None
        formats = self._few_shot.formats
        return formats[template % len(formats)].join(shown, query.inputs)

    def _drawn(self, row: Row, *, template: int, style: OptionStyle | None, draws: Draws) -> list[tuple[str, str]]:
        """(inputs, targets) of the exemplars before the budget."""
        few_shot, found = self._few_shot, []
        # One more than needed, since the query itself may be among them.
        others = [i for i in draws.sample(len(self._pool), few_shot.num_exemplars + 1) if self._pool[i] != row]
        for index in others[: few_shot.num_exemplars]:
            under = template
            if few_shot.templates != "query" or few_shot.pool is not None:
                under = draws.below(self._num_templates)
            if few_shot.templates == "matching" and under != template:
                continue
            try:
                rendered = self._render(self._pool[index], under, style)
            except NotApplicable:
                continue
            found.append((rendered.inputs, rendered.targets))
        return found

    def _count(self, text: str) -> int:
        if text not in self._counted:  # An exemplar serves many queries.
            self._counted[text] = self._count_once(text)
        return self._counted[text]

    def _count_once(self, text: str) -> int:
        assert self._count_tokens is not None
        return self._count_tokens(text)

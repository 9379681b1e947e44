"""The model "flan_jax" of EleutherAI's lm-evaluation-harness: a run, a T5X or a Hugging Face checkpoint.

    python -m flan_jax.lm_eval run --model flan_jax --model_args model_dir=runs/mine --tasks boolq,copa --batch_size 32

Follows the harness's rules for encoder-decoders, those of its `hf` model: the context goes to the encoder with the end
of sequence, the continuation to the decoder without it; spaces at the end of the context move to the continuation; a
context that is too long loses its beginning; an empty context is a single end of sequence. The harness has no entry
point for models of other packages, so that this module, once imported, registers the model, and as a program starts the
harness's command line. Nothing else in this project imports the harness, and it imports neither torch nor transformers.
"""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, final

from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from rich.console import Console
from tqdm import tqdm

from flan_jax import backend, launch, processes
from flan_jax.decoding.strategies import BeamSearch, Strategy, strategy_of
from flan_jax.errors import UserError
from flan_jax.files import sha256_of
from flan_jax.names import require_choice
from flan_jax.run.trained import ModelOptions, chosen_checkpoints, open_trained
from flan_jax.templates.chat import CONTEXT, DEFAULT_STYLE, Role, Turn, style_named

DEFAULT_BATCH_SIZE = 32
CHUNK_CONTEXTS = 4096  # Contexts that are packed together; more would only delay the progress bar.
_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "result"}

Encoded = tuple[tuple[str, str] | None, list[int], list[int]]
"""The texts of a request, None for a part of one, and the tokens of its context and continuation."""


@final
@register_model("flan_jax")
class FlanJaxLM(TemplateLM):
    """A trained network under the harness's interface.

    Several processes (`flan_jax.launch`) compute every request together; the first one writes the results.
    """

    backend = "seq2seq"

    def __init__(
        self,
        *,
        model_dir: str,
        step: int | str = "latest",
        vocabulary: str | None = None,
        batch_size: int | str = DEFAULT_BATCH_SIZE,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        chat_style: str = DEFAULT_STYLE,
        coordinator_address: str | None = None,
        process_count: int | None = None,
        process_index: int | None = None,
        **unused: Any,
    ):
        """Opens the network; arguments are those of `--model_args`.

        Args:
          model_dir: The directory of a run, or of a converted, T5X or Hugging Face checkpoint.
          step: "latest", "best" or a step.
          vocabulary: For a checkpoint without one: a SentencePiece model, a Hugging Face folder or "bytes".
          batch_size: Rows per batch; "auto" is the default.
          max_length: Tokens of a context, with the end of sequence; of a longer one the last ones are used. None uses
            the input length that the model was trained with, or 512.
          max_gen_toks: Tokens of a generated text, for tasks that give no limit.
          chat_style: The style of `templates/styles/chat.yaml` that `--apply_chat_template` uses.
          coordinator_address: With process_count and process_index: see `flan_jax.launch.join`.
          process_count: See there.
          process_index: See there.
          unused: `device` and `max_batch_size`, which the harness always gives: JAX finds the devices.

        Raises:
          UserError: An argument is not known or not allowed, or the checkpoint cannot be opened.
        """
        super().__init__()
        for name in unused:
            require_choice(name, ("device", "max_batch_size"), "an argument of the model flan_jax")
        backend.require_known_flags()
        self._group = launch.join(
            coordinator_address=coordinator_address, process_count=process_count, process_index=process_index
        )
        if self._group.count == 1:
            backend.compile_cache()
        if not self._group.is_first:
            # By this variable the harness recognizes processes that share a model: they write no results.
            os.environ["LOCAL_RANK"] = str(self._group.index)
        if not str(batch_size).isdecimal():  # "auto" searches what fits the memory of a GPU, which is not needed here.
            require_choice(str(batch_size).partition(":")[0], ("auto",), "a batch size besides numbers")
            batch_size = DEFAULT_BATCH_SIZE
        batch_size = int(batch_size)
        options = ModelOptions(model_dir=str(model_dir), step=step, vocabulary=vocabulary, batch_size=batch_size)
        trained = open_trained(options)
        if trained.vocabulary is None:
            raise UserError(f"{model_dir} was trained with a vocabulary class of its own, which cannot be used here.")
        if step == "all":
            raise UserError("step is 'all', but one model is evaluated at a time: give 'latest', 'best' or a number.")
        (weights,) = chosen_checkpoints(trained, options, console=Console(stderr=True)).values()
        self._network, self._params = trained.network, trained.params(weights)
        self._vocabulary = trained.vocabulary
        self._batch_size = batch_size
        self._max_gen_toks = max_gen_toks
        self._style = style_named(chat_style)
        self.max_length = max_length or trained.request.lengths["inputs"]
        self._score = self._network.scorer(self._params, batch_size=batch_size, input_length=self.max_length)

    @property
    def eot_token_id(self) -> int:
        """The end of sequence."""
        return self._vocabulary.eos_id

    @property
    def tokenizer_name(self) -> str:
        """Identifies vocabulary and chat style in the harness's caches."""
        return f"flan_jax__{self._vocabulary.digest[:12]}__{self._style.name}"

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Returns the name of the chat style, which the results record."""
        if isinstance(chat_template, str):
            self._style = style_named(chat_template)
        return self._style.name if chat_template else ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Returns the prompt of a conversation.

        Args:
          chat_history: Turns, {"role": ..., "content": ...}; one of them is the user's.
          add_generation_prompt: Whether the next turn is asked for; otherwise the last one is continued.

        Raises:
          UserError: A role is not known, or no turn is the user's.
        """
        turns = []
        for message in chat_history:
            require_choice(message["role"], _ROLES, "a role")
            turns.append(Turn(_ROLES[message["role"]], message["content"]))
        if not any(turn.role == "user" for turn in turns):
            raise UserError(f"No turn of {[turn.role for turn in turns]} is the user's, so there is nothing to answer.")
        turns.sort(key=lambda turn: turn.role not in CONTEXT)  # Stable: the context first, as the style writes it.
        if add_generation_prompt:
            return self._style.prompt(turns).text
        return self._style.separator.join(map(self._style.line, turns))

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Returns the tokens of a text, with the end of sequence unless `add_special_tokens` is False."""
        ids = self._vocabulary.encode(string)
        return ids if add_special_tokens is False else [*ids, self.eot_token_id]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Returns the log-likelihood of each text, in windows of `max_length` tokens: see the base class."""
        windows: list[Encoded] = []
        counts = []
        for (text,) in (request.args for request in requests):
            tokens = self.tok_encode(text)
            rolling = utils.get_rolling_token_windows(
                token_list=tokens, prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
            )
            parts = [(None, *utils.make_disjoint_window(window)) for window in rolling]
            windows += parts
            counts.append(len(parts))
        scores = iter(self._loglikelihood_tokens(windows, disable_tqdm=disable_tqdm))
        totals = [sum(next(scores)[0] for _ in range(count)) for count in counts]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def _loglikelihood_tokens(
        self, requests: Sequence[Encoded], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Returns the log-likelihood of each continuation, and whether it is the greedy one, in the order of requests.

        Continuations of one context are scored in one pass of the encoder.
        """
        self._group.require_agreement({"requests": sha256_of([tokens for _, *tokens in requests])})
        options: dict[tuple[int, ...], dict[tuple[int, ...], tuple[float, bool]]] = {}
        keys = []
        for texts, context, continuation in requests:
            if not continuation:
                raise UserError(f"The continuation of the request {texts!r} has no tokens, so it has no score.")
            keys.append((tuple(context[-self.max_length :]), tuple(continuation)))
            options.setdefault(keys[-1][0], {})[keys[-1][1]] = (0.0, False)
        contexts = list(options)
        with self._network.within(), self._progress(len(contexts), "contexts", disable=disable_tqdm) as bar:
            for start in range(0, len(contexts), CHUNK_CONTEXTS):
                chunk = range(start, min(start + CHUNK_CONTEXTS, len(contexts)))
                for number, scores in self._score((i, contexts[i], list(options[contexts[i]])) for i in chunk):
                    of_context = options[contexts[number]]
                    for option, score in zip(of_context, scores, strict=True):
                        of_context[option] = (score.total, score.is_greedy)
                    bar.update()
        results = [options[context][continuation] for context, continuation in keys]
        for (texts, _, _), result in zip(requests, results, strict=True):
            if texts is not None:  # Parts of a text have no entry of their own.
                self.cache_hook.add_partial("loglikelihood", texts, result)
        return results

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Returns the text generated for each context, up to the first stop string: see the base class.

        Raises:
          UserError: A generation setting is not known here, or not allowed.
        """
        self._group.require_agreement({"requests": sha256_of([list(request.args) for request in requests])})
        by_settings: dict[str, tuple[_Generation, list[int]]] = {}
        for number, request in enumerate(requests):
            settings = request.args[1]
            _, numbers = by_settings.setdefault(
                sha256_of(settings), (_generation(settings, max_gen_toks=self._max_gen_toks), [])
            )
            numbers.append(number)
        texts = [""] * len(requests)
        with self._network.within(), self._progress(len(requests), "texts", disable=disable_tqdm) as bar:
            for generation, numbers in by_settings.values():
                decoder = self._network.decoder(
                    self._params,
                    strategy=generation.strategy,
                    max_decode_length=generation.max_tokens,
                    batch_size=self._batch_size,
                    vocabulary=self._vocabulary,
                    eos_id=self.eot_token_id,
                )
                for start in range(0, len(numbers), CHUNK_CONTEXTS):
                    rows = [
                        (number, self.tok_encode(requests[number].args[0])[-self.max_length :])
                        for number in numbers[start : start + CHUNK_CONTEXTS]
                    ]
                    for number, (hypothesis, *_) in decoder(rows):
                        text = self._vocabulary.decode(hypothesis.tokens)
                        texts[number] = postprocess_generated_text(text, list(generation.until), None)
                        bar.update()
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def _progress(self, total: int, what: str, *, disable: bool) -> tqdm:
        return tqdm(total=total, disable=disable or not self._group.is_first, desc=f"Running {what}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Generation:
    """How a text is generated.

    Attributes:
      strategy: How tokens are chosen.
      max_tokens: The largest number of tokens.
      until: Texts that end it, which are not part of it.
    """

    strategy: Strategy
    max_tokens: int
    until: tuple[str, ...]


def _generation(settings: Mapping[str, Any], *, max_gen_toks: int) -> _Generation:
    """Returns what a task's `generation_kwargs` mean; unknown ones are refused by `strategy_of`."""
    given = dict(normalize_gen_kwargs(dict(settings), max_gen_toks))
    until = tuple(text for text in handle_stop_sequences(given.pop("until"), eos=None) if text)
    max_tokens = given.pop("max_gen_toks")
    # transformers counts the token that starts the decoder.
    max_tokens = given.pop("max_length", max_tokens + 1) - 1
    if not given.pop("do_sample"):
        # Without sampling these have no effect in `transformers`, and tasks give them all the same.
        given = {name: value for name, value in given.items() if name not in ("temperature", "top_k", "top_p", "min_p")}
    else:
        given.setdefault("temperature", 1.0)
    strategy = strategy_of(**given)
    if not isinstance(strategy, BeamSearch):
        # Beams end by themselves; the text is then truncated.
        strategy = dataclasses.replace(strategy, stop_strings=until)
    return _Generation(strategy=strategy, max_tokens=max_tokens, until=until)


def main() -> None:
    """Runs the harness's command line, which knows the model "flan_jax"."""
    from lm_eval.__main__ import cli_evaluate

    backend.compute_in_calling_thread()
    try:
        try:
            cli_evaluate()
        except BaseException:
            with processes.group().ended_together():  # The group that the model joined.
                raise
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        processes.group().leave(2)
        sys.exit(2)


if __name__ == "__main__":
    main()

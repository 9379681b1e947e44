"""Compiles the train step in a thread, while parameters are initialized or read and the first evaluation runs."""

import threading
from collections.abc import Callable
from typing import Any, final

import jax

from flan_jax.train.start_up import StartUp
from flan_jax.train.state import StepMetrics, TrainState


@final
class Compiling:
    """A step that is being compiled, callable like the step; the first call waits for the compiler.

    At exit the interpreter waits for the thread: the compiler cannot be stopped, and would abort the process. Messages
    about other errors have been printed by then.
    """

    def __init__(
        self,
        lower: Callable[[], jax.stages.Lowered],
        *,
        start_up: StartUp,
        before_first_step: Callable[[], None] = lambda: None,
    ):
        """Starts the thread.

        Args:
          lower: Traces the step; called in the thread.
          start_up: Records how long compiling takes, and how long the first call waits for it.
          before_first_step: Called once, after compiling.
        """
        self._lower, self._start_up, self._before_first_step = lower, start_up, before_first_step
        self._step: Any = None
        self._failure: BaseException | None = None
        self._is_waited_for = True
        self._thread = threading.Thread(target=self._compile, daemon=False, name="compile")
        self._thread.start()

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        """Runs one step; raises the compiler's error, if any."""
        if self._is_waited_for:
            with self._start_up.phase("compile"):
                self._thread.join()
            self._is_waited_for = False
            # Only after compiling: the compiler's own large temporaries are to be freed, not retained.
            self._before_first_step()
        if self._failure is not None:
            raise self._failure
        state, metrics = self._step(state, batch)
        return state, metrics

    def _compile(self) -> None:
        try:
            with self._start_up.in_background("compile"):
                self._step = self._lower().compile()
        except BaseException as error:  # Raised by the first call.
            self._failure = error

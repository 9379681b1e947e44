import io
import re

import pytest
from rich.console import Console

from flan_jax.train import console


def _console(*, terminal, width=200):
    return Console(file=io.StringIO(), force_terminal=terminal, width=width)


LINE = {"loss": 2.25, "accuracy": 0.5, "learning_rate": 1e-3, "seconds_per_step": 3.0, "tokens_per_second": 1234.5}


def test_a_pipe_gets_one_plain_line_with_the_remaining_time():
    out = _console(terminal=False)
    with console.console_writer(out, total_steps=1030) as writer:
        writer.advance(29)
        writer.write(30, kind="train", values=LINE)
        writer.write(30, kind="evaluation", values={"f1": 1.0})
    assert out.file.getvalue() == (
        "compiling the training step ...\n"
        "step 30/1,030  loss 2.250  accuracy 50.0%  rate 1.00e-03  3 s/step  1,234 tokens/s  50:00 left\n"
    )


def test_a_terminal_gets_a_bar_that_moves_with_every_step():
    out = _console(terminal=True)
    with console.console_writer(out, total_steps=100, step=40) as writer:
        writer.write(50, kind="train", values=LINE)
        writer.write(50, kind="save", values={"save_seconds": 1.0})
        writer.advance(51)
        out.print("a table")
    shown = out.file.getvalue()
    assert "51/100" in shown and "loss 2.250" in shown and "a table" in shown


@pytest.mark.parametrize("width", [50, 80, 120])
def test_step_time_left_and_loss_fit_every_terminal_and_losses_scroll_by(width):
    out = _console(terminal=True, width=width)
    with console.console_writer(out, total_steps=100_000) as writer:
        assert "compiling" in out.file.getvalue()
        for step in (10, 20):
            writer.advance(step)
            writer.write(
                step, kind="train", values={**LINE, "loss": step / 8, "padding_share": 0.2, "data_wait_share": 0.0}
            )
        writer.advance(21)
    screen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.file.getvalue()).replace("\r", "\n").splitlines()
    assert [line.split("  ")[:2] for line in screen if line.startswith("step")] == [
        ["step 10/100,000", "loss 1.250"],
        ["step 20/100,000", "loss 2.500"],
    ]
    bar = [line for line in screen if line.startswith("training")][-1]
    assert "21/100000" in bar and re.search(r"\d:\d\d +left  loss 2.500", bar)
    assert max(map(len, screen)) <= width


def test_unknown_numbers_are_omitted_and_skipped_steps_are_shown():
    assert console.summary({"loss": None, "padding_share": 0.25, "skipped_steps": 3}) == "padding 25%  skipped 3"


def test_no_remaining_time_is_shown_when_it_is_unknown():
    out = _console(terminal=False)
    with console.console_writer(out, total_steps=10) as writer:
        writer.write(1, kind="train", values={"loss": 1.0, "seconds_per_step": None})
    assert out.file.getvalue().endswith("\nstep 1/10  loss 1.000\n")

"""How a plan looks on a terminal. No verb itself: `plan` hands over what it found."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

GIB = 1 << 30


def show(told: Mapping[str, Any]) -> None:
    """Prints a plan, or a table of them."""
    console = Console()
    console = console if console.is_terminal else Console(width=1000)  # Folds no table in a file or a pipe.
    if "rows" in told:
        _table(console, told)
        return
    _head(console, told)
    if "memory" in told:
        _memory(console, told)
        _work(console, told)
        _exchanges(console, told)
        _estimate(console, told)
    if not told["fits"]:
        _refusal(console, told)
    if "largest_batch" in told:
        _largest_batch(console, told)
    _remarks(console, told)


def size(count: float | None) -> str:
    """Returns bytes for people.

    >>> size(3 << 30), size(5 << 20), size(None)
    ('3.00 GiB', '5.0 MiB', '?')
    """
    if count is None:
        return "?"
    if abs(count) >= GIB:
        return f"{count / GIB:.2f} GiB"
    return f"{count / 2**20:.1f} MiB" if abs(count) >= 1 << 20 else f"{count / 1024:.1f} KiB"


def seconds(count: float) -> str:
    """Returns a time for people.

    >>> seconds(1.5), seconds(0.0123), seconds(1e-5)
    ('1.50 s', '12.3 ms', '0.01 ms')
    """
    return f"{count:.2f} s" if count >= 1 else f"{count * 1e3:.1f} ms" if count >= 1e-3 else f"{count * 1e3:.2f} ms"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _head(console: Console, told: Mapping[str, Any]) -> None:
    where, recipe = told["topology"], told["recipe"]
    lengths = "/".join(str(length) for length in recipe["lengths"].values())
    _say(console, f"{where['name']}: {where['devices']} x {where['chip'] or 'CPU device'}")
    if where["is_compiled_for_itself"]:
        _say(console, f"compiled for {where['compiled_for']} with jax {where['jax']}; nothing was run")
    else:
        _say(
            console,
            f"COMPILED FOR {where['compiled_for'].upper()}, NOT FOR {where['name'].upper()}: memory, bytes and collectives are "
            "those of the CPU's program (which computes bfloat16 in float32), times those of the chip for it",
        )
        _say(console, f"to compile for it: {where['install']}")
    _say(
        console,
        f"{recipe['parameters'] / 1e6:,.1f} M parameters, {recipe['dtype']}; {recipe['batch_size']} rows of {lengths} a step in "
        f"{recipe['num_microbatches']} microbatch{'es' if recipe['num_microbatches'] > 1 else ''}",
    )
    _say(console, f"mesh {recipe['mesh']} ({recipe['mesh_reason']})")
    execution = recipe["execution"]
    _say(console, f"remat {execution['remat']}, layers {execution['layers']}, logits {execution['logits']}")
    for line in recipe["picked"]:
        _say(console, f"  {line}")


def _memory(console: Console, told: Mapping[str, Any]) -> None:
    memory, available = told["memory"], told["available_bytes"]
    table = Table("memory a device", "bytes", "", title_justify="left")
    table.add_row("arguments", size(memory["arguments"]), f"of which state {size(told['state_bytes'])}")
    table.add_row("outputs", size(memory["outputs"]), "")
    table.add_row("- given away", size(memory["aliased"]), "outputs that take the arguments' place")
    table.add_row("temporaries", size(memory["temporaries"]), "")
    table.add_row("program", size(memory["code"]), "")
    share = f"{memory['peak'] / available:.0%} of {size(available)}" if available else ""
    table.add_row("peak", size(memory["peak"]), share, style="bold")
    if memory["host_temporaries"]:
        table.add_row("host's memory", size(memory["host_temporaries"]), "offloaded")
    console.print(table)


def _work(console: Console, told: Mapping[str, Any]) -> None:
    program, devices = told["program"], told["topology"]["devices"]
    table = Table("work a device and step", "", "", title_justify="left")
    per_device = told["model_flops"]["per_step"] / devices
    table.add_row(
        "FLOPs of the model", f"{per_device:.3e}", "by its sizes; backward twice forward, nothing computed again"
    )
    ratio = program["flops"] / per_device if per_device else 0.0
    table.add_row(
        "FLOPs of the program", f"{program['flops']:.3e}", f"{ratio:.2f} of them: matrix products, loops in full"
    )
    if told["compiler"]["flops"] is not None:
        count = f"{told['compiler']['flops']:.3e}"
        table.add_row("the compiler's count", count, "a loop's body once, element-wise work besides")
    table.add_row("bytes to and from HBM", size(program["hbm_bytes"]), "")
    if program["host_bytes"]:
        table.add_row("bytes to and from the host", size(program["host_bytes"]), "")
    console.print(table)


def _exchanges(console: Console, told: Mapping[str, Any]) -> None:
    rows = told["program"]["exchanges"]
    if not rows:
        _say(console, "no collectives")
        return
    table = Table("collective", "axis", "number", "async", "bytes", "on the links", "not hidden", title_justify="left")
    for row in rows:
        table.add_row(
            row["kind"],
            row["axis"],
            f"{row['number']:,}",
            f"{row['asynchronous']:,}",
            size(row["bytes"]),
            seconds(row["seconds"]) if told["topology"]["chip"] else "",
            seconds(row["exposed_seconds"]) if told["topology"]["chip"] else "",
        )
    console.print(table)
    table = Table("largest single exchanges", "axis", "shape", "bytes", "number", "from", title_justify="left")
    for row in told["program"]["largest"][:6]:
        table.add_row(
            row["kind"],
            row["axis"],
            row["shape"].replace("[", "\\["),
            size(row["bytes"]),
            str(row["number"]),
            _short(row["op_name"]),
        )
    console.print(table)


def _short(op_name: str) -> str:
    parts = [part for part in op_name.split("/") if not part.startswith(("jit(", "while", "body", "closed_call"))]
    return "/".join(parts[-4:]).replace("[", "\\[")


def _estimate(console: Console, told: Mapping[str, Any]) -> None:
    estimate = told.get("estimate")
    if estimate is None:
        _say(console, "no estimate of time: nothing is known of this machine's peak")
        return
    table = Table("estimate", "step", "MFU", "rows/s", "tokens/s", "tokens/s a chip", title_justify="left")
    for name, label in (("roofline", "roofline (at best)"), ("compiler_cycles", "by the compiler's cycles")):
        if name in estimate:
            row = estimate[name]
            table.add_row(
                label,
                seconds(row["step_seconds"]),
                f"{row['mfu']:.1%}",
                f"{row['rows_per_second']:,.1f}",
                f"{row['tokens_per_second']:,.0f}",
                f"{row['tokens_per_second_per_chip']:,.0f}",
            )
    console.print(table)
    _say(
        console,
        f"at the roofline {seconds(estimate['compute_seconds'])} of computing, {seconds(estimate['exchange_seconds'])} on the links, "
        f"{seconds(estimate['exposed_seconds'])} of it not hidden; tokens are slots of rows, filled or not",
    )


def _refusal(console: Console, told: Mapping[str, Any]) -> None:
    available = told["available_bytes"]
    if "refusal" in told:
        refusal = told["refusal"]
        needed = refusal["needed"]
        asked = f"needs {size(needed)}" if needed else "needs more than that"
        _say(console, f"DOES NOT FIT: a device has {size(refusal['available'] or available)}, and the step {asked}")
        rest = f"; {size(needed - told['state_bytes'])} is what the step makes between" if needed else ""
        _say(console, f"of that parameters and optimiser state are {size(told['state_bytes'])}{rest}")
        for line in refusal["largest"][:8]:
            _say(console, f"  among the largest: {line}")
        if not refusal["largest"]:
            _say(console, f"the compiler says: {refusal['message'].splitlines()[0]}")
    else:
        _say(
            console, f"DOES NOT FIT: a device has {size(available)}, and the step needs {size(told['memory']['peak'])}"
        )
    if told.get("changes"):
        table = Table(
            "change", "then a device needs", "", title="what to change, what helps most first", title_justify="left"
        )
        for row in told["changes"]:
            fits = "" if row["peak"] is None else "fits" if row["fits"] else "does not fit yet"
            table.add_row(row["change"], size(row["peak"]), fits)
        console.print(table)


def _largest_batch(console: Console, told: Mapping[str, Any]) -> None:
    table = Table(
        "remat", "largest batch", "its peak", "refused at", title="largest batch that fits", title_justify="left"
    )
    for name, fit in told["largest_batch"].items():
        table.add_row(
            name,
            f"{fit['batch_size']:,}" if fit["batch_size"] else "none",
            size(fit["peak_bytes"]) if fit["peak_bytes"] else "",
            f"{fit['refused']:,}" if fit["refused"] else "",
        )
    console.print(table)


def _remarks(console: Console, told: Mapping[str, Any]) -> None:
    for leaf in told["whole_leaves"]:
        _say(console, f"whole on every device: {leaf['name']}, {size(leaf['bytes'])}")
    for line in told.get("complaints", ()):
        _say(console, f"the compiler says: {line}")
    if told["fits"] and told.get("client_share"):
        _say(
            console,
            "JAX takes three quarters of a GPU's memory by itself: this step needs XLA_PYTHON_CLIENT_MEM_FRACTION="
            f"{told['client_share']}",
        )
    if told.get("program", {}).get("unknown_loops"):
        _say(console, f"{told['program']['unknown_loops']} loop(s) of unknown length are counted once")
    if told.get("assumptions"):
        chip = told["estimate"]["chip"]
        _say(
            console,
            f"\nassumed: {chip['title']}: {chip['flops_per_second'] / 1e12:.0f} TFLOP/s bfloat16, HBM "
            f"{chip['hbm_bytes_per_second'] / 1e9:,.0f} GB/s, {chip['link_bytes_per_second'] / 1e9:.0f} GB/s a link one way "
            f"({chip['source']})",
        )
    for line in told.get("assumptions", ()):
        _say(console, f"- {line}")


def _table(console: Console, told: Mapping[str, Any]) -> None:
    lengths = "/".join(str(length) for length in told["lengths"].values())
    table = Table(title=f"{told['topology']}, {told['batch_size']} rows of {lengths}", title_justify="left")
    for column in ("mesh", "remat", "peak", "temporaries", "step (roofline)", "MFU", "by cycles", "MFU ", "not hidden"):
        table.add_column(column)
    for row in told["rows"]:
        if "memory" not in row:
            refusal = row.get("refusal", {})
            what = f"needs {size(refusal['needed'])}" if refusal.get("needed") else row.get("reason", "does not fit")
            table.add_row(row["mesh"], row["remat"], what)
            continue
        cells = [size(row["memory"]["peak"]), size(row["memory"]["temporaries"])]
        estimate = row.get("estimate")
        if estimate:
            for name in ("roofline", "compiler_cycles"):
                found = estimate.get(name)
                cells += [seconds(found["step_seconds"]), f"{found['mfu']:.1%}"] if found else ["", ""]
            cells.append(seconds(estimate["exposed_seconds"]))
        table.add_row(row["mesh"], row["remat"], *cells)
    console.print(table)

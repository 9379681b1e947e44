"""What XLA is told before it starts: flags that it knows, where the programs that it compiles are kept, how a CPU runs them.

Comes before anything asks JAX for a device; which processes share a run is `launch`'s.
"""

import contextlib
import ctypes
import functools
import hashlib
import mmap
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from flan_jax.errors import UserError
from flan_jax.names import nearest

CACHE_VARIABLE = "FLAN_JAX_COMPILE_CACHE"
CACHE_BYTES = 2 * 2**30
_LEAST_COMPILE_SECONDS = 0.2  # What takes less is compiled again sooner than it is found.
_PROBE = "from jaxlib import xla_client; xla_client.make_cpu_client()"
_PROBE_SECONDS = 60
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


def require_known_flags() -> None:
    """Refuses XLA_FLAGS that the installed jaxlib does not take, with which it would abort the process.

    They are tried in a process of its own, which takes 0.2 s and only where the variable is set. What libtpu reads,
    LIBTPU_INIT_ARGS, is left alone.

    Raises:
      UserError: a flag is unknown or has no such value.
    """
    trouble = flags_trouble(os.environ.get("XLA_FLAGS", ""))
    if trouble:
        raise UserError(trouble)


@functools.lru_cache(maxsize=8)
def flags_trouble(flags: str) -> str:
    """Returns what the installed jaxlib has against these XLA_FLAGS, and the mend; empty when it takes them."""
    if not flags.strip():
        return ""
    environment = {
        **os.environ,
        "XLA_FLAGS": flags,
        "TF_CPP_MIN_LOG_LEVEL": "0",
    }  # What is wrong with a value is a log line.
    command = [sys.executable, "-c", _PROBE]
    try:
        probe = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=_PROBE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # Whatever it is, JAX will come to it, and say it better.
    unknown = re.search(r"Unknown flags? in XLA_FLAGS: (.*)", probe.stderr)
    value = re.search(r"Couldn't interpret value (.*) for flag (\w+)", probe.stderr)
    if probe.returncode == 0 or not (unknown or value or "XLA_FLAGS" in probe.stderr):
        return ""
    mend = "Take it out of XLA_FLAGS"
    if value:
        what, mend = f"the value {value[1]!r} of --{value[2]}", "Mend it"
    elif unknown:
        names = [flag.removeprefix("--").partition("=")[0] for flag in unknown[1].split()]
        known = known_flags()
        what = " and ".join(f"--{name}" for name in names)
        if known.issuperset(names):  # "Unknown" is also said of one that lacks its value.
            what, mend = f"{what} without a value", "Give it one"
        else:
            hints = (nearest(name, known) for name in names if name not in known)
            mend += f".{''.join(hints)} "
            mend += "Flags come and go with versions of jaxlib, and those of old launch scripts are often gone"
    else:
        what = f"{flags!r}, which is neither flags that begin with -- nor a file of them"
    return f"XLA_FLAGS: jaxlib {_jaxlib_version()} does not take {what}, and would abort the process. {mend}."


def known_flags() -> frozenset[str]:
    """Returns the names in jaxlib's library that look like XLA's flags; empty where it is built otherwise."""
    found: set[str] = set()
    import jaxlib

    for library in Path(jaxlib.__file__).parent.glob("libjax_common.so"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            # Names of flags are whole strings in it; those of fields that no flag sets any longer are parts of others.
            found |= {name.decode() for name in re.findall(rb"\0(xla_[a-z0-9_]+)(?=\0)", text)}
    return frozenset(found)


def step_options(platform_name: str) -> dict[str, str]:
    """Returns the compiler options of a training step on a platform, as `jax.jit` takes them.

    On CPU the schedule that keeps least alive is the faster one too.
    """
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"} if platform_name == "cpu" else {}


def compute_in_calling_thread() -> None:
    """Has a CPU's programs run in the thread that calls them; comes before anybody asks JAX for a device.

    A program has the whole processor either way. Of glibc's memory pools only that of the process's first thread can keep
    blocks as large as a step's temporaries (`keep_freed_memory`).
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)


def keep_freed_memory(platform_name: str) -> None:
    """Has this process keep what a step frees for the next one, where steps run on the host's processor.

    XLA on CPU asks for a step's temporaries at every step anew. glibc takes blocks of that size from the kernel and gives
    them back, and the kernel clears each page again: a sixth of a step. What compiling left is given back first. With
    another C library this does nothing.
    """
    if platform_name != "cpu" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)  # Never.


def _jaxlib_version() -> str:
    import jaxlib.version

    return jaxlib.version.__version__


def compile_cache(directory: str = "auto") -> Path | None:
    """Keeps compiled programs from one start to the next, so that the same run starts in a fraction of the time.

    They are the same programs, to the bit: a run computes the same with and without. What the variable
    FLAN_JAX_COMPILE_CACHE says goes before `directory`; JAX's own setting (JAX_COMPILATION_CACHE_DIR), before both.
    The folder is the machine's: code for one processor is not run on another one that shares the home.

    Args:
      directory: where; "auto" for `$XDG_CACHE_HOME/flan_jax` or `~/.cache/flan_jax`, "off" for nowhere.

    Returns:
      Where they are kept; None: nowhere, or where JAX was told to.
    """
    import jax

    wanted = os.environ.get(CACHE_VARIABLE) or directory
    if wanted == "off" or getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return None
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "flan_jax" if wanted == "auto" else Path(wanted)
        place = base.expanduser() / "compiled" / _machine()
        place.mkdir(parents=True, exist_ok=True)
        _require_writable(place)
        _prune(place, max_bytes=CACHE_BYTES)
    except (OSError, RuntimeError) as error:  # A home that is read-only, full or not there is no reason not to run.
        print(
            f"flan-jax: compiled programs are not kept ({error}); {CACHE_VARIABLE}=off says so by name", file=sys.stderr
        )
        return None
    jax.config.update("jax_compilation_cache_dir", str(place))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_COMPILE_SECONDS)
    return place


def _machine() -> str:
    """Returns a name for processors that run each other's code: their kind and what they can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    abilities = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    digest = hashlib.sha256("\n".join(abilities).encode()).hexdigest()
    return f"{platform.machine() or 'machine'}-{digest[:12]}"


def _require_writable(place: Path) -> None:
    trial = place / f".{os.getpid()}"
    trial.touch()
    trial.unlink(missing_ok=True)  # Another machine may share the folder, and have a process of this number.


def _prune(place: Path, *, max_bytes: int) -> None:
    """Removes the oldest programs where all of them take too much; a process that misses one compiles it again."""
    kept = []
    for entry in os.scandir(place):
        with contextlib.suppress(FileNotFoundError):  # Another process's trial, gone again.
            kept.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    total = 0
    for _, size, path in sorted(kept, reverse=True):
        total += size
        if total > max_bytes:
            Path(path).unlink(missing_ok=True)

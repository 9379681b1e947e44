"""Settings of XLA that must precede its first use: valid flags, the cache of compiled programs, execution on CPU."""

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
from flan_jax.paths import user_path

CACHE_VARIABLE = "FLAN_JAX_COMPILE_CACHE"
CACHE_BYTES = 2 * 2**30
_MIN_COMPILE_SECONDS = 0.2  # Faster programs are compiled again in less time than they are looked up.
# Creating a client parses all of XLA_FLAGS; one for CPU opens no accelerator that a run may hold.
_PROBE = "from jaxlib import xla_client; xla_client.make_cpu_client()"
_PROBE_SECONDS = 60
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


def require_known_flags() -> None:
    """Refuses XLA_FLAGS that the installed jaxlib does not accept, because it would abort the process.

    If the variable is set, a child process tries it, in 0.2 s. LIBTPU_INIT_ARGS, which libtpu reads, is not checked.

    Raises:
      UserError: A flag is unknown or has an invalid value.
    """
    problem = flags_problem(os.environ.get("XLA_FLAGS", ""))
    if problem:
        raise UserError(problem)


@functools.lru_cache(maxsize=8)
def flags_problem(flags: str) -> str:
    """Returns why the installed jaxlib rejects these XLA_FLAGS, and a fix; empty if it accepts them."""
    if not flags.strip():
        return ""
    # At this log level jaxlib logs which value is invalid.
    environment = {**os.environ, "XLA_FLAGS": flags, "TF_CPP_MIN_LOG_LEVEL": "0"}
    command = [sys.executable, "-c", _PROBE]
    try:
        probe = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=_PROBE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # JAX itself will fail with a better message.
    unknown = re.search(r"Unknown flags? in XLA_FLAGS: (.*)", probe.stderr)
    value = re.search(r"Couldn't interpret value (.*) for flag (\w+)", probe.stderr)
    if probe.returncode == 0 or not (unknown or value or "XLA_FLAGS" in probe.stderr):
        return ""
    fix = "Remove it from XLA_FLAGS"
    if value:
        what, fix = f"the value {value[1]!r} of --{value[2]}", "Correct it"
    elif unknown:
        names = [flag.removeprefix("--").partition("=")[0] for flag in unknown[1].split()]
        known = known_flags()
        what = " and ".join(f"--{name}" for name in names)
        if known.issuperset(names):  # Also "unknown": a flag that lacks its value.
            what, fix = f"{what} without a value", "Give it one"
        else:
            hints = (nearest(name, known) for name in names if name not in known)
            fix += f".{''.join(hints)} "
            fix += "Flags differ between versions of jaxlib; those of old launch scripts are often gone"
    else:
        what = f"{flags!r}, which is neither a list of flags (--name=value) nor a file of them"
    return f"XLA_FLAGS: jaxlib {_jaxlib_version()} does not accept {what}, and would abort the process. {fix}."


def known_flags() -> frozenset[str]:
    """Returns the names of XLA's flags, as found in jaxlib's library; empty if it has another layout."""
    names: set[str] = set()
    import jaxlib

    for library in Path(jaxlib.__file__).parent.glob("libjax_common.so"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            # Names of flags are complete strings there; names of fields without a flag are parts of other strings.
            names |= {name.decode() for name in re.findall(rb"\0(xla_[a-z0-9_]+)(?=\0)", text)}
    return frozenset(names)


def step_options(platform_name: str) -> dict[str, str]:
    """Returns the compiler options of a training step on a platform, as `jax.jit` takes them.

    On CPU the schedule for the least memory is also the fastest one.
    """
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"} if platform_name == "cpu" else {}


def compute_in_calling_thread() -> None:
    """Makes programs on CPU run in the calling thread; must precede the first use of a device.

    A program uses all cores either way. Among glibc's memory pools, only that of the process's first thread can retain
    blocks as large as a step's temporaries (`retain_freed_memory`).
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)


def retain_freed_memory(platform_name: str) -> None:
    """On CPU, retains the memory that a step frees for the next step.

    XLA on CPU allocates a step's temporaries again in each step. glibc requests blocks of that size from the kernel and
    returns them, and the kernel clears each page again: a sixth of the step time. Memory freed after compilation is
    returned first. With another C library this does nothing.
    """
    if platform_name != "cpu" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    # The compiler's memory is returned once: with the settings below nothing is returned any more.
    libc.malloc_trim(0)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)  # Never.


def _jaxlib_version() -> str:
    import jaxlib.version

    return jaxlib.version.__version__


def compile_cache(directory: str = "auto") -> Path | None:
    """Saves compiled programs for later starts, which then take a fraction of the time.

    The programs are the same to the bit, and so are the results of a run. JAX's own setting (JAX_COMPILATION_CACHE_DIR)
    takes precedence, then the variable FLAN_JAX_COMPILE_CACHE, then `directory`. Each kind of processor has its own
    folder, because machines with different processors may share a home.

    Args:
      directory: The cache's folder; "auto" for `$XDG_CACHE_HOME/flan_jax` or `~/.cache/flan_jax`, "off" for no cache.

    Returns:
      The folder; None where there is no cache, or where JAX has its own setting.
    """
    import jax

    setting = os.environ.get(CACHE_VARIABLE) or directory
    if setting == "off" or getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return None
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "flan_jax") if setting == "auto" else setting
        folder = user_path(base) / "compiled" / _machine()
        folder.mkdir(parents=True, exist_ok=True)
        _require_writable(folder)
        _prune(folder, max_bytes=CACHE_BYTES)
    except (OSError, UserError) as error:  # A home that is read-only, full or missing is no reason not to run.
        print(f"flan-jax: no cache of compiled programs ({error}); {CACHE_VARIABLE}=off silences this", file=sys.stderr)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS)
    return folder


def _machine() -> str:
    """Returns a name that machines share if they run each other's code: architecture and processor features."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    features = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    digest = hashlib.sha256("\n".join(features).encode()).hexdigest()
    return f"{platform.machine() or 'machine'}-{digest[:12]}"


def _require_writable(folder: Path) -> None:
    trial = folder / f".{os.getpid()}"
    trial.touch()
    trial.unlink(missing_ok=True)  # Another machine that shares the folder may have a process with this number.


def _prune(folder: Path, *, max_bytes: int) -> None:
    """Removes the oldest programs beyond a total size; a process that needs one compiles it again."""
    programs = []
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # Removed by another process meanwhile.
            programs.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    total = 0
    for _, size, path in sorted(programs, reverse=True):
        total += size
        if total > max_bytes:
            Path(path).unlink(missing_ok=True)

"""Compiled programs: made once per process, kept on disk between processes, and named by all that decides their bits.

A file in the cache is machine code behind its digest: a cache directory is as trusted as the code itself. Each lies in
a directory named by its fingerprint, so that another machine, version or flag never finds it.
"""

import ast
import fcntl
import functools
import hashlib
import os
import platform
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import jax
from jaxlib.xla_client import CompileOptions, DeviceList

DIGEST_BYTES = 16
KEPT_MAX = 8  # directories
OPTIONS = {
    # On a GPU the same bits at every run and after every compilation; a CPU takes no notice.
    "xla_gpu_exclude_nondeterministic_ops": True,
    "xla_gpu_autotune_level": 0,
    # On a CPU sums over features stay XLA's own: those of its kernel library take a third of the whole tick.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT",
    # XLA takes half of the widest vectors: all of them save a tenth. A processor without any takes no notice.
    "xla_cpu_prefer_vector_width": 512,
}
BACKEND_OPTIONS = {
    # On a CPU the loops become one function. A tick is hundreds of small kernels: to hand them out one by one costs
    # nearly half as much again. By itself XLA does it with loops that touch fewer bytes than these.
    "xla_cpu_small_while_loop_byte_threshold": str(10**12),
}
_lock = threading.Lock()


class Executable:
    """Machine code on the device: flat arrays in, in the order of the program's arguments, and flat arrays out.

    Arguments that the program was lowered with as donated are used up. What lies on the host is brought over first.
    """

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded

    def __call__(self, *arguments: Any) -> list[jax.Array]:
        given = [each if isinstance(each, jax.Array) else jax.device_put(each) for each in arguments]
        answer = self._loaded.execute_sharded(given)
        return [shards[0] for shards in answer.disassemble_into_single_device_arrays()]

    def code(self) -> bytes:
        return self._loaded.serialize()

    @classmethod
    def of(cls, code: bytes) -> "Executable":
        device = jax.devices()[0]
        return cls(device.client.deserialize_executable(code, executable_devices=DeviceList((device,))))


_made: dict[tuple[bytes, str], Executable] = {}
_making: dict[tuple[bytes, str], threading.Lock] = {}


def executable(
    key: tuple, fingerprint: bytes, cache_dir: Path | None, lower: Callable[[], Any]
) -> tuple[Executable, bool]:
    """The compiled program of `key`, and whether it had to be compiled just now. Of a key counts what it prints as.

    Threads and processes that share a cache compile a program once: the others wait.
    """
    whole_key = (fingerprint, repr(key))
    with _lock:
        making = _making.setdefault(whole_key, threading.Lock())
    with making:
        if whole_key in _made:
            return _made[whole_key], False
        name = hashlib.blake2b(repr(key).encode(), digest_size=8).hexdigest()
        path = cache_dir / fingerprint.hex() / f"{name}.code" if cache_dir else None
        with _turn(path):
            found = _load(path) if path else None
            _made[whole_key] = found if found is not None else _compile(lower, path)
        return _made[whole_key], found is None


@contextmanager
def _turn(path: Path | None) -> Iterator[None]:
    """One process at a time for one file; a cache that cannot be written has no turns."""
    file = _lock_file(path) if path else None
    if file is None:
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock_file(path: Path) -> IO[str] | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_suffix(".lock").open("w")
    except OSError:
        return None


def _compile(lower: Callable[[], Any], path: Path | None) -> Executable:
    device = jax.devices()[0]
    module = lower().compiler_ir("stablehlo")
    made = Executable(device.client.compile_and_load(module, DeviceList((device,)), _options()))
    if path:
        _save(path, made.code())
    return made


def _options() -> Any:
    """JAX hands on no option of a back end; as a message they are added to what the options say of themselves."""
    options = CompileOptions()
    options.env_option_overrides = list(OPTIONS.items())
    pairs = (_message(500, _message(1, key), _message(2, value)) for key, value in BACKEND_OPTIONS.items())
    return CompileOptions.ParseFromString(options.SerializeAsString() + _message(3, _message(3, *pairs)))


def _message(field: int, *parts: bytes | str) -> bytes:
    """A field of a protocol buffer; two messages one behind the other are one."""
    content = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _save(path: Path, code: bytes) -> None:
    """Writes the file whole or not at all. A cache that cannot be written only costs the next start its time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            file.write(hashlib.blake2b(code, digest_size=DIGEST_BYTES).digest() + code)
        os.replace(file.name, path)
        _prune(path.parent.parent)
    except OSError as error:
        warnings.warn(f"the compiled program was not kept: {error}. The next start compiles again.", stacklevel=2)


def _prune(cache_dir: Path) -> None:
    """Leaves the newest few: every version, flag and machine has a directory of its own."""
    for old in sorted(cache_dir.iterdir(), key=lambda path: -path.stat().st_mtime)[KEPT_MAX:]:
        shutil.rmtree(old, ignore_errors=True)


def _load(path: Path) -> Executable | None:
    """The program in a file, or None where there is none that can be used: then it is compiled and written anew."""
    if not path.exists():
        return None
    content = path.read_bytes()
    digest, code = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.blake2b(code, digest_size=DIGEST_BYTES).digest() != digest:
        return None
    try:
        return Executable.of(code)
    except jax.errors.JaxRuntimeError:  # made for instructions that this processor has not
        return None


def fingerprint(*parts: object) -> bytes:
    """Eight bytes for the parts and the machine: equal fingerprints, equal bits."""
    return hashlib.blake2b(repr((parts, OPTIONS, BACKEND_OPTIONS, _machine())).encode(), digest_size=8).digest()


@functools.cache
def _machine() -> tuple:
    """Everything outside the source that can change the bits of a result."""
    device = jax.devices()[0]
    packages = tuple((name, version(name)) for name in ("jax", "jaxlib", "equinox", "ott-jax"))
    return (packages, device.platform, device.device_kind, os.environ.get("XLA_FLAGS", ""), _processor())


def _processor() -> tuple:
    """Model and features: the compiler chooses its instructions by them."""
    about = Path("/proc/cpuinfo")
    if not about.exists():
        return (platform.machine(), platform.processor())
    lines = about.read_text().split("\n\n")[0].splitlines()
    return tuple(line for line in lines if line.startswith(("model name", "cpu family", "flags", "Features")))


@functools.cache
def sources(*files: str) -> bytes:
    """A digest of these files and of all that they import from our package; an edit elsewhere leaves it as it is."""
    found: dict[Path, bytes] = {}
    waiting = [Path(file) for file in files]
    while waiting:
        path = waiting.pop()
        if path not in found and path.exists():
            found[path] = path.read_bytes()
            waiting += _imported(path, found[path])
    return hashlib.blake2b(b"\0".join(found[path] for path in sorted(found)), digest_size=8).digest()


def _imported(path: Path, source: bytes) -> list[Path]:
    """Where the modules may lie that a file imports by relative names at its top; what it imports later is no part."""
    paths = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1]
            if node.module:
                folder = folder.joinpath(*node.module.split("."))
                paths += [folder.with_suffix(".py"), folder / "__init__.py"]
            paths += [folder / f"{name.name}.py" for name in node.names]
    return paths

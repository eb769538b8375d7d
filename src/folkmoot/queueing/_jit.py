"""How this room's kernels are compiled: cached on disk, with exact arithmetic, without the interpreter's lock.

A signed index costs a comparison, since numba lets it count from the end; so the kernels' indices are unsigned,
and all that they calculate with is `np.uint64`, as numba makes a float of a signed and an unsigned number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import numba
import numpy as np
from filelock import FileLock
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])
Word: TypeAlias = Any
"""A whole number of a kernel; numba knows the arithmetic of its types, and numpy's stubs do not."""
u64: Any = np.uint64
u32: Any = np.uint32
i64: Any = np.int64


def compiled(into: bool = False) -> Callable[[F], F]:
    """Decorates a function that numba compiles when it is first called. No `fastmath`: results are the same to the bit.

    With `into` its code goes into each caller's: the compiler leaves out longer ones, and to call one puts each word of
    each array that it gets on the stack.

    Kernels get all their arrays and make none, so nothing is counted that refers to one: that cost an atomic
    addition or two at each call.
    """
    njit: Any = numba.njit
    decorate = njit(cache=True, fastmath=False, nogil=True, error_model="numpy", forceinline=into, _nrt=False)

    def cached(function: F) -> F:
        config: Any = numba.config
        chosen, config.CACHE_DIR = config.CACHE_DIR, config.CACHE_DIR or _folder()
        try:
            return cast(F, decorate(function))
        finally:
            config.CACHE_DIR = chosen

    return cached


@contextmanager
def compiling() -> Iterator[None]:
    """Of processes that begin together one compiles at a time, and the others read what it has kept.

    Where no lock can be had each compiles for itself.
    """
    config: Any = numba.config
    with ExitStack() as held:
        with suppress(OSError, NotImplementedError):
            folder = Path(config.CACHE_DIR or _folder())
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(folder / "compiling"))
        yield


@cache
def _folder() -> str:
    """Where compiled code lies: numba looks at a function's own file only, and would keep what others of this room were."""
    here, digest = Path(__file__).parent, blake2b(digest_size=8)
    for file in sorted(here.glob("*.py")):
        digest.update(file.read_bytes())
    return str(here / "__pycache__" / f"kernels-{digest.hexdigest()}")


def _prefetch(typing_context: Any, array: Any, place: Any) -> Any:
    """Ask for the cache line of `array[place]`, which is not needed yet; `place` is unsigned."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        whole = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, whole, whole, whole])
        asked: Any = cgutils
        builder.call(
            asked.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8"),
            [pointer, whole(0), whole(3), whole(1)],
        )
        return context.get_dummy_value()

    return types.void(array, place), generate


prefetch: Any = intrinsic(_prefetch)

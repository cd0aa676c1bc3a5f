"""One NVML call, made safe: "not supported" is no answer, not an error.

The codes are ``nvmlReturn_t`` of nvml.h. 3 and 13 mean that the GPU or the driver lacks the feature, 22 that a virtual
GPU has no ECC, 25 that this driver does not know this version of the struct, 26 that it has dropped the feature: all
of them give None. pynvml raises 13 for a symbol that the library lacks. Every other code is kept as a ``CallError`` of
the GPU that was asked: no data must never look like good data.

There are three ways to ask, by what a failure means:

| ask for | a failure | for what |
|---|---|---|
| ``call(…)`` | an error of the GPU | what every driver answers, or says that there is none of it |
| ``call.detail(…)`` | unread: what it feeds cannot be judged | what drivers refuse for reasons of their own as well |
| ``call.inventory(…)`` | the value is unknown | what people read and no check does |
"""

from collections.abc import Callable, Collection
from typing import Any

import pynvml

from gpudiag_agent.sample import NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED, CallError

INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
DRIVER_NOT_LOADED = 9
TIMEOUT = 10
INSUFFICIENT_POWER = 8
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
CORRUPTED_INFOROM = 14
LIB_RM_VERSION_MISMATCH = 18
VGPU_ECC_NOT_SUPPORTED = 22
ARGUMENT_VERSION_MISMATCH = 25
DEPRECATED = 26
UNKNOWN = 999
UNSUPPORTED = frozenset(
    {NOT_SUPPORTED, FUNCTION_NOT_FOUND, VGPU_ECC_NOT_SUPPORTED, ARGUMENT_VERSION_MISMATCH, DEPRECATED}
)

ABOUT_THE_GPU = frozenset({NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED})
"""Codes that another way to ask will not change."""
TELLING = ABOUT_THE_GPU | {INSUFFICIENT_POWER, CORRUPTED_INFOROM}
"""Codes that say what is wrong with the GPU whatever was asked."""
NOT_THIS_DRIVER = UNSUPPORTED | {INVALID_ARGUMENT}
"""A driver older than what it is asked for calls that an invalid argument."""

_NAMES: dict[int, str] = {
    value: name for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_") and isinstance(value, int)
}


def error_name(code: int) -> str:
    """The name of a return code, for example ``NVML_ERROR_GPU_IS_LOST``."""
    return _NAMES.get(code, f"NVML_ERROR_{code}")


def attempt(name: str, *arguments: Any) -> tuple[Any, int]:
    """Call a pynvml function by name.

    Returns:
        The value and 0, or None and the NVML code. A function that this pynvml lacks counts as not found.
    """
    function: Callable[..., Any] | None = getattr(pynvml, name, None)
    if function is None:
        return None, FUNCTION_NOT_FOUND
    try:
        return function(*arguments), 0
    except pynvml.NVMLError as error:
        return None, int(error.value)
    except UnicodeDecodeError as error:
        # pynvml decodes strings strictly; a corrupted InfoROM answers with arbitrary bytes.
        return error.object.decode(errors="replace"), 0


def _error(name: str, code: int) -> CallError:
    return CallError(call=name, code=code, name=error_name(code))


class Caller:
    """Calls on behalf of one GPU and collects the errors."""

    def __init__(self) -> None:
        self._errors: dict[tuple[str, int], CallError] = {}
        self._unread: dict[tuple[str, int], CallError] = {}

    @property
    def errors(self) -> tuple[CallError, ...]:
        """What failed, in order, one for each function and code."""
        return tuple(self._errors.values())

    @property
    def unread(self) -> tuple[CallError, ...]:
        """Details that were not told, in the same form."""
        return tuple(self._unread.values())

    def __call__(self, name: str, *arguments: Any, tolerate: Collection[int] = ()) -> Any | None:
        """The value of a call, None where it is unsupported or failed.

        Args:
            name: of the pynvml function.
            arguments: its arguments.
            tolerate: further codes that are no error of the GPU here.
        """
        value, code = attempt(name, *arguments)
        if code and code not in UNSUPPORTED and code not in tolerate:
            self.failed(name, code)
        return value

    def detail(self, name: str, *arguments: Any) -> Any | None:
        """The value of a call that drivers may refuse for many reasons, none of which says that the GPU is ill."""
        value, code = attempt(name, *arguments)
        self.answered(name, code)
        return value

    def inventory(self, name: str, *arguments: Any) -> Any | None:
        """The value of a call that no check needs: where it fails, that is unknown and nothing else."""
        value, code = attempt(name, *arguments)
        if code in TELLING:
            self.failed(name, code)
        return value

    def answered(self, name: str, code: int) -> None:
        """Keep the code of a detail: one that is telling is an error, one that leaves it untold makes it unread."""
        if code in TELLING:
            self.failed(name, code)
        elif code and code not in NOT_THIS_DRIVER:
            self._unread.setdefault((name, code), _error(name, code))

    def failed(self, name: str, code: int) -> None:
        """Keep an error of the GPU."""
        self._errors.setdefault((name, code), _error(name, code))

    def first(self, *calls: tuple[Any, ...]) -> Any | None:
        """The value of the first call that answers, newest function first.

        An error counts only when no older function answers either: a driver may not know the newer one.
        """
        failures = []
        for name, *arguments in calls:
            value, code = attempt(name, *arguments)
            if not code:
                return value
            failures.append((name, code))
            if code in ABOUT_THE_GPU:
                break
        for name, code in failures:
            if code not in UNSUPPORTED:
                self.failed(name, code)
        return None

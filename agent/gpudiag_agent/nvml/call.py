"""One NVML call, made safe: "not supported" is no answer, not an error.

The codes are ``nvmlReturn_t`` of nvml.h. 3 and 13 mean that the GPU or the driver lacks the feature, 22 that a virtual
GPU has no ECC, 25 that this driver does not know this version of the struct, 26 that it has dropped the feature: all
of them give None. pynvml raises 13 for a symbol that the library lacks. Every other code is kept as a ``CallError`` of
the GPU that was asked.
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
"""Codes that another way to ask will not change, and that count whatever was asked."""

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


class Caller:
    """Calls on behalf of one GPU and collects the errors."""

    def __init__(self) -> None:
        self._errors: dict[tuple[str, int], CallError] = {}

    @property
    def errors(self) -> tuple[CallError, ...]:
        """What failed, in order, one for each function and code."""
        return tuple(self._errors.values())

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
        """The value of a call that drivers may refuse for many reasons, none of which says that the GPU is ill.

        Only a GPU that is lost or wants a reset is an error here: an odd answer about a detail is no alarm.
        """
        value, code = attempt(name, *arguments)
        self.weigh(name, code)
        return value

    def weigh(self, name: str, code: int) -> None:
        """Keep the code of such a call where it is about the GPU as a whole."""
        if code in ABOUT_THE_GPU:
            self.failed(name, code)

    def failed(self, name: str, code: int) -> None:
        """Keep an error of the GPU."""
        self._errors.setdefault((name, code), CallError(call=name, code=code, name=error_name(code)))

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

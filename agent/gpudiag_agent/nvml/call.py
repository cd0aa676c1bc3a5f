"""One NVML call, made safe: "not supported" is no answer, not an error.

The codes are ``nvmlReturn_t`` of nvml.h. 3 and 13 mean the GPU or the driver lacks the feature, 25 that this driver
does not know this version of the struct: all three give None. pynvml raises 13 for a symbol the library lacks.
Every other code is kept as a ``CallError`` of the GPU that was asked.
"""

from collections.abc import Callable
from typing import Any

import pynvml

from gpudiag_agent.sample import CallError

NOT_SUPPORTED = 3
FUNCTION_NOT_FOUND = 13
ARGUMENT_VERSION_MISMATCH = 25
UNSUPPORTED = frozenset({NOT_SUPPORTED, FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH})

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
    except UnicodeDecodeError:
        # pynvml decodes strings strictly; a corrupted InfoROM answers with arbitrary bytes.
        return None, NOT_SUPPORTED


class Caller:
    """Calls on behalf of one GPU and collects the errors."""

    def __init__(self) -> None:
        self._errors: dict[int, CallError] = {}

    @property
    def errors(self) -> tuple[CallError, ...]:
        """The first call that failed with each code."""
        return tuple(self._errors.values())

    def __call__(self, name: str, *arguments: Any) -> Any | None:
        """The value of a call, None where it is unsupported or failed."""
        value, code = attempt(name, *arguments)
        if code and code not in UNSUPPORTED:
            self._errors.setdefault(code, CallError(call=name, code=code, name=error_name(code)))
        return value

    def first(self, *calls: tuple[Any, ...]) -> Any | None:
        """The value of the first call that is supported: newer functions first, older drivers lack them."""
        for name, *arguments in calls:
            value = self(name, *arguments)
            if value is not None:
                return value
        return None

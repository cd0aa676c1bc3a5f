"""Bounds of what is read back from the state folder: beyond them it was not this agent who wrote it.

A value that a report cannot carry would make every report of this life fail. msgspec holds decoded values to them.
"""

from typing import Annotated

import msgspec

Moment = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799)]
"""Unix seconds, up to the year 9999: what a time as text can say."""
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Word = Annotated[str, msgspec.Meta(max_length=63)]
"""An address, a UUID, a serial number."""

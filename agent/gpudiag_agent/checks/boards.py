"""What kind of board a GPU is, where that decides what is ordinary."""

_WORKSTATION = ("GEFORCE", "RTX", "QUADRO", "TITAN")


def is_workstation(model: str) -> bool:
    """Whether it is a workstation's or a gamer's board, which comes with ECC and persistence mode switched off.

    By the product name, as NVML gives no better sign: ``NVIDIA RTX 6000 Ada Generation`` is one, ``Tesla T4`` and
    ``NVIDIA RTX PRO 6000 Blackwell Server Edition`` are not. No name: not one.
    """
    name = model.upper()
    return "SERVER" not in name and any(word in name for word in _WORKSTATION)

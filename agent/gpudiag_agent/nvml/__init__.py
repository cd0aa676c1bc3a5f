"""Reads the GPUs through NVML, in a process that can be killed.

An NVML call can block for ever in the kernel (process state D), and no thread timeout ends it. So ``reader`` and
``child`` run in a process of their own, and ``source`` in the agent asks it for samples with a deadline.

    agent     source ── process ──┐  frames over pipes
    child     child ── reader ── device ── identity, sensors, memory, pcie, links …
    call      makes each call safe ── pynvml ── libnvidia-ml.so.1
"""

"""What the node says besides NVML and the kernel log: ``/sys``, ``/proc``, services."""

"""The nvidia-peermem module on nodes with InfiniBand."""

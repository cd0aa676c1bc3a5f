"""What the operator shows of itself: logs, metrics, health. Shows what is, decides nothing."""

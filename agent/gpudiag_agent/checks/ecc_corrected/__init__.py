"""Rate of corrected memory errors."""

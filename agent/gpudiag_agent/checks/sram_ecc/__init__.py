"""Uncorrectable SRAM errors over the vendor's threshold."""

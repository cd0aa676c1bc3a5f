"""Registration and health of the GPU in its NVSwitch fabric."""

"""Width, and generation under load, of the PCIe link."""

"""The command line: the kubectl plugin, the fleet simulator and the embedded control plane."""

"""`kubectl-gpudiag demo` and `up`: the whole of gpudiag on one machine, without a GPU and without a cluster."""

"""GPUs that are not there: scenario files for demos, tests and a look around on a laptop."""

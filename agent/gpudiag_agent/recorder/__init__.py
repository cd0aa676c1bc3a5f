"""The flight recorder: the last half hour of every GPU, and what happened meanwhile, in bounded memory."""

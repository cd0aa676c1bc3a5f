"""What the facade keeps of a GPUNode and of a GPUDiagnostic: the fields it answers from, decoded once per change.

Structs instead of the pydantic kinds of ``gpudiag_api``: a fleet of 1,000 nodes is decoded in a fraction of the time
and memory. A test compares every field here with the kinds, so the two cannot drift apart. Everything has a default:
an object that an older operator wrote is read as far as it goes.
"""

"""The contract between the parts of gpudiag: kinds, vocabulary and the agent's wire report. No I/O."""

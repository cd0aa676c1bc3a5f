"""Generates the CustomResourceDefinitions from the kinds. Pure: ``tools/generate.py`` does the writing."""

from gpudiag_api.crdgen.definitions import gpudiagnostic_crd, gpunode_crd

__all__ = ["gpudiagnostic_crd", "gpunode_crd"]

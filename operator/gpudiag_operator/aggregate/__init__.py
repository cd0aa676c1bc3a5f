"""Aggregate: many nodes and one question make one GPUDiagnostic status. Pure."""

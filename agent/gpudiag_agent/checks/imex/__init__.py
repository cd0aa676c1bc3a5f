"""The IMEX service, where the node is part of a domain."""

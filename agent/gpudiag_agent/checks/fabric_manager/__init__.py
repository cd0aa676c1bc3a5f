"""The Fabric Manager service, where the node needs it."""

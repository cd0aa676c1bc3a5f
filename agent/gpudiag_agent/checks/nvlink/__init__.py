"""NVLinks that were up and are down."""

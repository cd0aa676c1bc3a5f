"""The operator: discover, collect, assess, aggregate, publish."""

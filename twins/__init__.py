"""The product: one folder a resource, the same file names in each."""

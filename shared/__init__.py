"""What any service of this kind needs; it knows nothing of twins."""

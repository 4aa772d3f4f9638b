"""`/twins`: a twin's name, its use, and whether it may be used now."""

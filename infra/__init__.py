"""Infrastructure of Twins on Azure, and its checks."""

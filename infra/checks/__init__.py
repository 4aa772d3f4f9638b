"""Checks of the Bicep templates that need no Azure."""

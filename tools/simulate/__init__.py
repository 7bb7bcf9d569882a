"""Seeded simulations of the monitors' error rates: `make simulate`."""

"""Catalogue of the datasets: list and search them, and render static pages."""

"""Bundles and the signed evidence about them, in the environment's registry bucket.

The serving image imports this package, so it needs only what that image installs.
"""

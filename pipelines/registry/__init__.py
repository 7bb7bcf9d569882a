"""Registry of an environment: bundles, signed evidence, ledger, runs and quarantined bundles, in one S3 bucket.

The serving image imports this package, so it may only use what that image installs.
"""

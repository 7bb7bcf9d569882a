"""Who may do what in the emulated account: signatures, principals, permissions and policies.

The emulator's own enforcement knows resources for S3 only (a grant on one KMS key refuses everything), skips most
conditions, and reads neither key policies nor session tags. So it stays off, and every request passes this layer first.
"""

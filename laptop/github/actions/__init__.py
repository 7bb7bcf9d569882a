"""Stand-ins for third-party actions, by `owner/name`."""

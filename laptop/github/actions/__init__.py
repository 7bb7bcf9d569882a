"""Stand-ins for the actions of others, by `owner/name`."""

"""What stands on the laptop for the actions of others, one file an action or two."""

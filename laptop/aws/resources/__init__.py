"""The resource types that the local target applies: one file a service, one row a type."""

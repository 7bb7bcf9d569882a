"""Resource types of the AWS provider."""

"""What an AWS account needs before the first deployment: the state bucket, and the roles that GitHub may take."""

"""The laptop's GitHub: a bare repository with pull requests, and a runner of the committed workflow files."""

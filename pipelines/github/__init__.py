"""Git and GitHub: clones, commits, pull requests, comments and repository settings."""

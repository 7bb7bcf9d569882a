"""Comments on pull requests, in GitHub's Markdown."""

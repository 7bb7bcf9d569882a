"""The GitHub CLI of the laptop: the commands and arguments that the product uses."""

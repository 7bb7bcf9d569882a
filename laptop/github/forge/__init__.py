"""Repository hosting: branches, pull requests, rules, tokens, events and the REST API."""

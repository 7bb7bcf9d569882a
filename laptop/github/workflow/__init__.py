"""Workflow files and composite actions: read, validate, and match with events."""

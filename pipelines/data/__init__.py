"""Data: check landing files against their contract, and append them to Iceberg tables as dataset versions."""

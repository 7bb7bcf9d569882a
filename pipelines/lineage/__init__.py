"""Lineage: which landing files a bundle was made from, and which releases a file, column or contract has reached."""

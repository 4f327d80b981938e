"""The gate, its rules, and the takedown record."""

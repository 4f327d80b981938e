"""The report: one HTML page, self-contained."""

"""Diagnoses an edit: the audit of concepts that it damaged, and the neurons of a concept."""

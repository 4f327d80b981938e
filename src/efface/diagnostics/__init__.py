"""What an edit did inside and beside its target: the audit of damaged concepts, and concept neurons."""

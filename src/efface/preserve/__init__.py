"""What is held in place."""

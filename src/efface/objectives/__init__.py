"""What the model should predict for the target now."""

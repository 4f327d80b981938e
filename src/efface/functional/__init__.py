"""The mathematics: pure functions of tensors, no models and no files."""

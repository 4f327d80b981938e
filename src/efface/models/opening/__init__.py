"""Opening a model: where it lies, whether its files are whole, and one look over it before anything is drawn."""

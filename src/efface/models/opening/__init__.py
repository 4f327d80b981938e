"""Opening a model: finds its files, checks that they are whole, and checks the pipeline before anything is drawn."""

"""The face of the library: what `import efface` offers, which the command line calls too. Imports no torch."""

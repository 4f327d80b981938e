"""The library's public functions, which `import efface` offers and the command line calls; it imports no torch."""

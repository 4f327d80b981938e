"""The papers' formulas, written once more and sharing no code with the package, to compare its methods with."""

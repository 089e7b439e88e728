"""Error rates, identification rates and their uncertainty: plain NumPy functions, arrays in, arrays out."""

"""How fast the product is, as a ratio to a limit measured in the same run (`wasl bench`)."""

"""What the product says to people, in French and Arabic: catalogs, and how figures are written."""

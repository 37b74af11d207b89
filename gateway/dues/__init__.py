"""What the law asks, and what follows for one person: data, and pure decisions."""

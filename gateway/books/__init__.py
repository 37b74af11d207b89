"""The double-entry books: accounts, the hash-chained ledger, its signed heads."""

"""What a code says and how it looks: payment codes, signed receipts, symbols, photos. Pure."""

"""What providers and banks say they paid out: read, kept, and held against what is booked."""

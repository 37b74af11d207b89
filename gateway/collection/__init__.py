"""Money that comes in and goes back: what is reported, booked, and which debt it pays."""

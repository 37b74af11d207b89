"""`wasl soak`: thousands of payments while things go wrong and programs are killed, then judged."""

"""Who owes: enrolment, what they do, where they stand, and what we attest of it."""

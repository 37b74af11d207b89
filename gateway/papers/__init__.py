"""What people hold in their hands: notices and receipts as tagged PDF, in French and in Arabic."""

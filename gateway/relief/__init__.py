"""Instalment plans and remissions: granted, judged by date, kept or broken."""

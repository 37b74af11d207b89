"""Invoices through their life: issued, explained, corrected by notes, shown, bundled."""

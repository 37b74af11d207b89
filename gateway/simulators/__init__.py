"""The outside world, played: payers, their providers, and the institution.

Separate programs of the standard library only. They import nothing of gateway, webhooks or
reconciliation, so that a misunderstanding in the product is not repeated in its judge. Each is run
as `python -m gateway.simulators.NAME`.
"""

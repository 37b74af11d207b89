"""All pages as one router: fixed addresses first, `/{reference}` last."""

from __future__ import annotations

from fastapi import APIRouter

from gateway.pages import messages, payer, receipt, static, verify

router = APIRouter(include_in_schema=False)
for part in (static, verify, messages, receipt, payer):
    router.include_router(part.router, include_in_schema=False)

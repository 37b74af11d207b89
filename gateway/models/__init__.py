"""The gateway's tables. The database is the last judge: what must hold is a constraint here.

Amounts are centimes (`_minor`), instants are aware UTC (`_at`), days are days in Casablanca
(`_on`). Rows are built by the module that owns them; `table=True` validates nothing.
Triggers (append-only tables, immutable columns) are in the migrations.
"""

from __future__ import annotations

from gateway.models.books import LedgerAccount as LedgerAccount
from gateway.models.books import LedgerBatch as LedgerBatch
from gateway.models.books import LedgerTransfer as LedgerTransfer
from gateway.models.dues import Bundle as Bundle
from gateway.models.dues import BundleItem as BundleItem
from gateway.models.dues import Invoice as Invoice
from gateway.models.dues import InvoiceLine as InvoiceLine
from gateway.models.dues import InvoiceNote as InvoiceNote
from gateway.models.dues import InvoiceRelief as InvoiceRelief
from gateway.models.dues import IssueChunk as IssueChunk
from gateway.models.dues import IssueRun as IssueRun
from gateway.models.dues import Plan as Plan
from gateway.models.dues import PlanInstalment as PlanInstalment
from gateway.models.dues import ReferenceKey as ReferenceKey
from gateway.models.dues import Remission as Remission
from gateway.models.dues import Rule as Rule
from gateway.models.messages import Message as Message
from gateway.models.messages import MessageStop as MessageStop
from gateway.models.messages import MessageWalk as MessageWalk
from gateway.models.money import Allocation as Allocation
from gateway.models.money import InquiryBudget as InquiryBudget
from gateway.models.money import Payment as Payment
from gateway.models.money import PaymentAttempt as PaymentAttempt
from gateway.models.money import PaymentReturn as PaymentReturn
from gateway.models.papers import Attestation as Attestation
from gateway.models.papers import PrintFile as PrintFile
from gateway.models.papers import PrintRun as PrintRun
from gateway.models.papers import Receipt as Receipt
from gateway.models.papers import ReceiptDue as ReceiptDue
from gateway.models.refunds import Refund as Refund
from gateway.models.refunds import RefundStep as RefundStep
from gateway.models.register import Activity as Activity
from gateway.models.register import Category as Category
from gateway.models.register import Contributor as Contributor
from gateway.models.register import Erasure as Erasure
from gateway.models.register import ReassessmentDue as ReassessmentDue
from gateway.models.sending import SendingHold as SendingHold
from gateway.models.service import ApiKey as ApiKey
from gateway.models.service import CodedException as CodedException
from gateway.models.service import Event as Event
from gateway.models.service import IdempotentAnswer as IdempotentAnswer
from gateway.models.service import OutboxMessage as OutboxMessage
from gateway.models.service import Staff as Staff
from gateway.models.words import AccountKind as AccountKind
from gateway.models.words import AttemptState as AttemptState
from gateway.models.words import BundleKind as BundleKind
from gateway.models.words import Channel as Channel
from gateway.models.words import Component as Component
from gateway.models.words import EventType as EventType
from gateway.models.words import ExceptionCode as ExceptionCode
from gateway.models.words import InvoiceStatus as InvoiceStatus
from gateway.models.words import LineKind as LineKind
from gateway.models.words import Manner as Manner
from gateway.models.words import MessageKind as MessageKind
from gateway.models.words import MessageState as MessageState
from gateway.models.words import PaymentStatus as PaymentStatus
from gateway.models.words import Periodicity as Periodicity
from gateway.models.words import RefundState as RefundState
from gateway.models.words import RefundWay as RefundWay
from gateway.models.words import ReturnKind as ReturnKind
from gateway.models.words import ReturnState as ReturnState
from gateway.models.words import Role as Role

"""What happened, sent to those who want to be told: Standard Webhooks, in order, at least once.

An endpoint walks along the feed of events (gateway.events) by a cursor: where it stands is all that
is kept of what it still gets, so nothing is written when something happens, and nothing is lost
when a sender is killed. It gets one event at a time, and the next one only when it took the one
before. Resends of a span of the past are walks of their own beside it.
"""

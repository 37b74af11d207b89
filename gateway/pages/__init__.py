"""The pages of whoever pays, and of whoever checks a receipt: plain HTML, no script needed."""

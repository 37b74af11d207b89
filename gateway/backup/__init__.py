"""The whole state in one file: taken while everything runs, put back into an empty installation."""

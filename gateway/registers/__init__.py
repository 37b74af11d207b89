"""Public registers and how identification numbers are written: places, chambers, check digits.

Nothing here knows a person. Places and chambers are data; what they do not hold is no error, for
registers change more often than programs.
"""

"""`/v1`: the management API, for programs of the institution, its chambers, agents and providers.

`access` says who may what, `route` guards every operation, `problems` is the table of all refusals;
then a module for each resource, its bodies and answers beside its operations.
"""

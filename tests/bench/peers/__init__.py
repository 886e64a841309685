"""What others would build for the same job, on the same table, to be measured beside the service.

They are given what helps them: no authentication, no limits, no event rows, no traces.
"""

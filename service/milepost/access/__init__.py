"""Access of calls of any protocol: identity, permission and rate of the caller.

A protocol describes each of its methods by one `method.Method`, and asks, in this order:
`Admission.admit` (is there room), `Authenticator.authenticate` (who is it), `policy.authorize` (may
they), `RateLimits.charge` (how often). Each of them returns, or raises an error of the domain.
"""
